/* What the row kernels are given. The meaning of each field is that of isogon/kernels/rows.py. */
#ifndef ISOGON_ROWS_H
#define ISOGON_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* How a target's place within its cell becomes masses of bins. All three are one table of polynomials, the profile. */
enum { PLACE_CELL = 0, PLACE_NEAREST_EDGE = 1, PLACE_BIN = 2 };

enum { DEGREE = 4 };

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

/* Scalar targets of one support. Bin `cell - before + j` has the mass
 *     sum_i profile[piece][i][j] * s^i,   i = 0 .. DEGREE, j = 0 .. window - 1,
 * where the position is `cell` plus a fraction, and `piece` and s in [-1, 1] say where the fraction lies:
 *   PLACE_CELL: the fraction is cut into `pieces` equal ones;
 *   PLACE_NEAREST_EDGE: the distance to the nearer edge times `scale` is, `pieces` of them from the edge below and as
 *     many from the edge above (the last piece is for everything farther);
 *   PLACE_BIN: the position is that of an edge counted from below; all mass is in one bin. */
typedef struct {
    int32_t place;
    int32_t bins;
    int32_t window; /* a multiple of 16 */
    int32_t before;
    int32_t pieces;
    double scale;
    double lowest, highest, origin, width, last;
    const float *profile;
} rows_plan;

typedef struct {
    const rows_plan *plan; /* NULL: targets are distributions */
    int64_t bins;
    int64_t samples;
    int32_t block; /* samples at a time, at most BLOCK */

    const void *logits;
    int32_t logits_type;
    int64_t row_stride, column_stride; /* in elements */
    const int64_t *index;              /* which row a sample reads, or NULL */

    const void *target; /* float, or double */
    int32_t target_is_double;

    const float *probs;              /* rows of K, contiguous */
    const double *reward, *discount; /* NULL: distributions stay where they are */
    double origin, width;

    const float *weight; /* or NULL */
    float coefficient;

    float *loss;
    void *gradient; /* contiguous rows of K in the logits' type, or NULL */
    int32_t accumulate; /* rows add up in a gradient of zeros, which is float32 whatever the logits are */
    int32_t stream;     /* rows of float32, aligned to 64 bytes, go past the caches */
    int64_t two_passes_from; /* bins from which on exponentials are made twice rather than kept */
    float *mean, *entropy, *logsumexp, *target_mean; /* NULL: no stats; target_mean only for distributions */
    const double *centres;                           /* or NULL */
} rows_job;

/* What one thread saw, and which finished gradient it still has to write out: `pending` floats, a multiple of 16. */
typedef struct {
    int64_t clipped, nan;
    float *pending_to;
    const float *pending_from;
    int64_t pending;
} rows_seen;

/* Most samples at a time; every vector width divides it. */
enum { BLOCK = 16 };

/* Floats of scratch that a thread needs. */
size_t rows_scratch_floats(const rows_job *job);
size_t rows_zeroed_floats(const rows_job *job);

/* Works on `count` <= job->block samples. The scratch's first rows_zeroed_floats must be 0 before the first call. */
typedef void rows_block(const rows_job *job, const int64_t *sample, int count, float *scratch, rows_seen *seen);

/* A rows_block that is given no sample writes out what is pending. */

rows_block rows_block_portable;
#if defined(__x86_64__)
rows_block rows_block_avx2;
rows_block rows_block_avx512;
#endif

#endif
