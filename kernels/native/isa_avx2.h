/* Vectors of 8 floats: AVX2 and FMA. */
#include <immintrin.h>

#define V 8
#define FUSED 1
#define ISA __attribute__((target("avx2,fma,bmi2,prfchw")))
#define INLINE static inline __attribute__((always_inline, target("avx2,fma,bmi2,prfchw")))

typedef __m256 vf;

INLINE vf v_set(float a) { return _mm256_set1_ps(a); }
INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE __m256i lane_numbers(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
INLINE __m256i first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane_numbers()); }
INLINE vf v_load_first(const float *p, int n, float rest) {
    __m256i mask = first_lanes(n);
    return _mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}
INLINE void v_store_first(float *p, vf a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
/* b where either is NaN. */
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
/* Within what v_exp takes, where e^a is 0 below and too large above; NaN stays. */
INLINE vf v_bounded(vf a) { return v_min(v_set(88.0f), v_max(v_set(-110.0f), a)); }
INLINE vf v_lane_numbers(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
/* a where it is above 0 and its lane, lane 0 being number `first`, is within [0, end); else 0. */
INLINE vf v_positive_within(vf a, int64_t first, int64_t end) {
    __m256i number = _mm256_add_epi32(lane_numbers(), _mm256_set1_epi32((int)first));
    __m256i within = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_setzero_si256(), number),
                                         _mm256_cmpgt_epi32(_mm256_set1_epi32((int)end), number));
    return _mm256_and_ps(_mm256_castsi256_ps(within), _mm256_max_ps(a, _mm256_setzero_ps()));
}
/* Whether any lane is outside [low, high], or NaN. */
INLINE int v_any_outside(vf a, float low, float high) {
    return _mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(a, v_set(low), _CMP_GE_OQ),
                                            _mm256_cmp_ps(a, v_set(high), _CMP_LE_OQ))) != 0xff;
}
/* row[first ...], of which only lanes where `mass` is above 0 are read; 0 elsewhere. */
INLINE vf v_load_where_mass(const float *row, int64_t first, vf mass) {
    __m256i mask = _mm256_castps_si256(_mm256_cmp_ps(mass, _mm256_setzero_ps(), _CMP_NEQ_UQ));
    return _mm256_maskload_ps(row + first, mask);
}
/* a where mass is not 0, else 0. */
INLINE vf v_where_mass(vf a, vf mass) {
    return _mm256_and_ps(_mm256_cmp_ps(mass, _mm256_setzero_ps(), _CMP_NEQ_UQ), a);
}
/* n floats, a multiple of 16, past the caches to an address aligned to 64 bytes; seen by others after v_fence. */
INLINE void v_stream(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
}
INLINE void v_fence(void) { _mm_sfence(); }
INLINE vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a * 2^n for whole n from -126 to 127; 0 below. */
INLINE vf v_scale2(vf a, vf n) {
    __m256i whole = _mm256_cvtps_epi32(n);
    vf scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(whole, 23)));
    return _mm256_blendv_ps(scaled, _mm256_setzero_ps(), _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_LT_OQ));
}
/* a = m * 2^e with m in [0.75, 1.5), for normal a above 0. */
INLINE vf v_split2(vf a, vf *e) {
    __m256i bits = _mm256_castps_si256(a);
    __m256i n = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f400000)), 23);
    *e = _mm256_cvtepi32_ps(n);
    return _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(n, 23)));
}
/* Lane r of the result is the sum of the 8 lanes of row r, in one order for all rows. */
INLINE void v_sum_rows(const float *rows, float *sums) {
    for (int half = 0; half < 2; half++, rows += 64) {
        __m256 a[4], b[2];
        for (int i = 0; i < 4; i++) {
            __m256 x = _mm256_load_ps(rows + 16 * i), y = _mm256_load_ps(rows + 16 * i + 8);
            a[i] = _mm256_add_ps(_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
        }
        for (int i = 0; i < 2; i++) {
            __m256d x = _mm256_castps_pd(a[2 * i]), y = _mm256_castps_pd(a[2 * i + 1]);
            b[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
        }
        _mm256_store_ps(sums + 8 * half,
                        _mm256_add_ps(_mm256_permute2f128_ps(b[0], b[1], 0x20), _mm256_permute2f128_ps(b[0], b[1], 0x31)));
    }
}
