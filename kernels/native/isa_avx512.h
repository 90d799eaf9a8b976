/* Vectors of 16 floats: AVX-512 F, DQ, BW, VL. */
#include <immintrin.h>

#define V 16
#define FUSED 1
#define ISA __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi2,prfchw")))
#define INLINE static inline __attribute__((always_inline, target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi2,prfchw")))

typedef __m512 vf;

INLINE vf v_set(float a) { return _mm512_set1_ps(a); }
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE __mmask16 first_lanes(int n) { return (__mmask16)_bzhi_u32(0xffff, (unsigned)n); }
INLINE vf v_load_first(const float *p, int n, float rest) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(rest), first_lanes(n), p);
}
INLINE void v_store_first(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
/* b where either is NaN. */
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
/* Within what v_exp takes, where e^a is 0 below and too large above; NaN stays. */
INLINE vf v_bounded(vf a) { return v_max(v_set(-110.0f), a); }
INLINE vf v_lane_numbers(void) {
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
/* a where it is above 0 and its lane, lane 0 being number `first`, is within [0, end); else 0. */
INLINE vf v_positive_within(vf a, int64_t first, int64_t end) {
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i number = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)first));
    __mmask16 within = _mm512_cmplt_epu32_mask(number, _mm512_set1_epi32((int)end));
    return _mm512_maskz_max_ps(within, a, _mm512_setzero_ps());
}
/* Whether any lane is outside [low, high], or NaN. */
INLINE int v_any_outside(vf a, float low, float high) {
    return (_mm512_cmp_ps_mask(a, v_set(low), _CMP_GE_OQ) & _mm512_cmp_ps_mask(a, v_set(high), _CMP_LE_OQ)) != 0xffff;
}
/* row[first ...], of which only lanes where `mass` is above 0 are read; 0 elsewhere. */
INLINE vf v_load_where_mass(const float *row, int64_t first, vf mass) {
    return _mm512_maskz_loadu_ps(_mm512_cmp_ps_mask(mass, _mm512_setzero_ps(), _CMP_NEQ_UQ), row + first);
}
/* a where mass is not 0, else 0. */
INLINE vf v_where_mass(vf a, vf mass) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(mass, _mm512_setzero_ps(), _CMP_NEQ_UQ), a);
}
/* n floats, a multiple of 16, past the caches to an address aligned to 64 bytes; seen by others after v_fence. */
INLINE void v_stream(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) _mm512_stream_ps(to + i, _mm512_load_ps(from + i));
}
INLINE void v_fence(void) { _mm_sfence(); }
INLINE vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a * 2^n for whole n. */
INLINE vf v_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
/* a = m * 2^e with m in [0.75, 1.5), for normal a above 0. */
INLINE vf v_split2(vf a, vf *e) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i n = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f400000)), 23);
    *e = _mm512_cvtepi32_ps(n);
    return _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(n, 23)));
}
/* Lane r of the result is the sum of the 16 lanes of row r, in one order for all rows. */
INLINE void v_sum_rows(const float *rows, float *sums) {
    __m512 a[8], b[8];
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            __m512 x = _mm512_load_ps(rows + (4 * i + 2 * j) * 16), y = _mm512_load_ps(rows + (4 * i + 2 * j + 1) * 16);
            a[2 * i + j] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
        }
        __m512d x = _mm512_castps_pd(a[2 * i]), y = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    /* b[i]: four 128-bit parts, each with partial sums of rows 4i .. 4i + 3. */
    __m512 c = _mm512_add_ps(_mm512_shuffle_f32x4(b[0], b[1], 0x88), _mm512_shuffle_f32x4(b[0], b[1], 0xdd));
    __m512 d = _mm512_add_ps(_mm512_shuffle_f32x4(b[2], b[3], 0x88), _mm512_shuffle_f32x4(b[2], b[3], 0xdd));
    _mm512_store_ps(sums, _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd)));
}
