/* Vectors of 4 floats in the vector extension of GCC and Clang, which every target has. */
#include <math.h>
#include <string.h>

#define V 4
#define FUSED 0 /* v_fma may round twice */
#define ISA
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

INLINE vf v_set(float a) { return (vf){a, a, a, a}; }
INLINE vf v_load(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE void v_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
INLINE vf v_load_first(const float *p, int n, float rest) {
    vf a = v_set(rest);
    for (int l = 0; l < n; l++) a[l] = p[l];
    return a;
}
INLINE void v_store_first(float *p, vf a, int n) {
    for (int l = 0; l < n; l++) p[l] = a[l];
}
INLINE vf v_add(vf a, vf b) { return a + b; }
INLINE vf v_sub(vf a, vf b) { return a - b; }
INLINE vf v_mul(vf a, vf b) { return a * b; }
INLINE vf v_div(vf a, vf b) { return a / b; }
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf v_fnma(vf a, vf b, vf c) { return c - a * b; }
INLINE vf v_choose(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
/* b where either is NaN. */
INLINE vf v_max(vf a, vf b) { return v_choose(a > b, a, b); }
INLINE vf v_min(vf a, vf b) { return v_choose(a < b, a, b); }
/* Within what v_exp takes, where e^a is 0 below and too large above; NaN stays. */
INLINE vf v_bounded(vf a) { return v_min(v_set(88.0f), v_max(v_set(-110.0f), a)); }
INLINE vf v_lane_numbers(void) { return (vf){0, 1, 2, 3}; }
/* a where it is above 0 and its lane, lane 0 being number `first`, is within [0, end); else 0. */
INLINE vf v_positive_within(vf a, int64_t first, int64_t end) {
    vi number = (vi){0, 1, 2, 3} + (int32_t)first;
    return (vf)((vi)a & (a > 0) & (number >= 0) & (number < (int32_t)end));
}
/* Whether any lane is outside [low, high], or NaN. */
INLINE int v_any_outside(vf a, float low, float high) {
    vi within = (a >= low) & (a <= high);
    return !(within[0] & within[1] & within[2] & within[3]);
}
/* row[first ...], of which only lanes where `mass` is above 0 are read; 0 elsewhere. */
INLINE vf v_load_where_mass(const float *row, int64_t first, vf mass) {
    vf a = v_set(0);
    for (int l = 0; l < V; l++)
        if (mass[l] != 0) a[l] = row[first + l];
    return a;
}
/* a where mass is not 0, else 0. */
INLINE vf v_where_mass(vf a, vf mass) { return (vf)((vi)a & (vi)(mass != v_set(0))); }
/* n floats; past the caches where there is a portable way, which there is not. */
INLINE void v_stream(float *to, const float *from, int64_t n) { memcpy(to, from, (size_t)n * sizeof *to); }
INLINE void v_fence(void) {}
/* For |a| below 2^22. */
INLINE vf v_round(vf a) { return (a + 12582912.0f) - 12582912.0f; }
/* a * 2^n for whole n from -126 to 127; 0 below. */
INLINE vf v_scale2(vf a, vf n) {
    vi whole = __builtin_convertvector(n, vi);
    vf scaled = (vf)((vi)a + (whole << 23));
    return (vf)((vi)scaled & ~(vi)(n < v_set(-126.0f)));
}
/* a = m * 2^e with m in [0.75, 1.5), for normal a above 0. */
INLINE vf v_split2(vf a, vf *e) {
    vi bits = (vi)a, n = (bits - 0x3f400000) >> 23;
    *e = __builtin_convertvector(n, vf);
    return (vf)(bits - (n << 23));
}
/* Lane r of the result is the sum of the 4 lanes of row r, in one order for all rows. */
INLINE void v_sum_rows(const float *rows, float *sums) {
    for (int r = 0; r < BLOCK; r++, rows += V) sums[r] = (rows[0] + rows[2]) + (rows[1] + rows[3]);
}
