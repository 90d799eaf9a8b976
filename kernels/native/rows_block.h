/* Loss and gradient of up to 16 samples at once, for any vector width; included after an isa_*.h.
 *
 * Nothing is done row by row that can be done for 16 rows at a time: positions, logarithms and the sums over lanes.
 * Each sample goes through three steps, and each step through all samples before the next begins:
 *
 *   1. e = exp(x), kept in scratch, and lane-wise partial sums of e, of the target's masses p and of p x;
 *   2. the sums; the loss, log(sum e) - (sum p x) / (sum p);
 *   3. the gradient, (e / sum e - p / sum p) weight.
 *
 * No maximum is subtracted: exp(x) does not overflow where the sum turns out to lie between e^-30 and e^40, and the
 * logarithm of such a sum is exact enough. Where it does not, the sample alone is done again, relative to its maximum.
 * That hangs on nothing but the sample's own logits, so a result never depends on its neighbours.
 */

#define CONCATENATE(a, b) a##_##b
#define NAMED(a, b) CONCATENATE(a, b)

#define ALIGNED __attribute__((aligned(64)))

/* Zeros on both sides of a row of masses, so that any vector of bins that a window touches can be loaded from it. */
enum { PADDING = 16 };

typedef struct {
    float *exps, *masses, *staged, *moved;
    int64_t stride, window; /* from row to row */
    float *partial_e, *partial_p, *partial_px, *partial_mean;
} scratch_parts;

INLINE scratch_parts parts_of(const rows_job *job, float *scratch) {
    scratch_parts parts;
    parts.stride = (job->bins + 15) & ~(int64_t)15;
    parts.window = job->plan ? job->plan->window + 2 * PADDING : 0;
    parts.partial_e = scratch, scratch += BLOCK * 16;
    parts.partial_p = scratch, scratch += BLOCK * 16;
    parts.partial_px = scratch, scratch += BLOCK * 16;
    parts.partial_mean = scratch, scratch += BLOCK * 16;
    parts.masses = scratch + PADDING, scratch += job->block * parts.window;
    parts.exps = scratch, scratch += job->block * parts.stride;
    parts.staged = scratch, scratch += job->block * parts.stride;
    parts.moved = scratch;
    return parts;
}

/* e^x = p 2^n: Cody & Waite's reduction; the polynomial is minimax (fitted in float64 by
 * iteratively reweighted least squares, Lawson's algorithm), relative error 1.1e-7. */
INLINE vf v_exp_parts(vf x, vf *n) {
    *n = v_round(v_mul(x, v_set(1.44269504f)));
    vf r = v_fnma(*n, v_set(0.693359375f), x);
    r = v_fnma(*n, v_set(-2.12194440e-4f), r);
    vf p = v_fma(v_set(0.008312522433698177f), r, v_set(0.041890159249305725f));
    p = v_fma(p, r, v_set(0.16667114198207855f));
    p = v_fma(p, r, v_set(0.499992311000824f));
    p = v_fma(p, r, v_set(1.0f));
    return v_fma(p, r, v_set(1.0f));
}

/* e^x of a bounded x, NaN for NaN. */
INLINE vf v_exp(vf x) {
    vf n, p = v_exp_parts(x, &n);
    return v_scale2(p, n);
}

/* log a for normal a > 0. The polynomial is minimax on [-0.25, 0.5], fitted likewise, error 6e-9 of m - 1. */
INLINE vf v_log(vf a) {
    vf e, m = v_split2(a, &e), f = v_sub(m, v_set(1.0f));
    vf p = v_fma(v_set(-0.0461665540933609f), f, v_set(0.10582699626684189f));
    p = v_fma(p, f, v_set(-0.13186892867088318f));
    p = v_fma(p, f, v_set(0.14467716217041016f));
    p = v_fma(p, f, v_set(-0.16643743216991425f));
    p = v_fma(p, f, v_set(0.19991089403629303f));
    p = v_fma(p, f, v_set(-0.2500019371509552f));
    p = v_fma(p, f, v_set(0.33333447575569153f));
    p = v_fma(p, f, v_set(-0.5f));
    p = v_fma(v_mul(p, f), f, f);
    return v_fma(e, v_set(0.693359375f), v_fma(e, v_set(-2.12194440e-4f), p));
}

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, mantissa = half & 0x3ff, bits;
    if (exponent == 31)
        bits = sign | 0x7f800000 | mantissa << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;
    if (bits < 0x38800000) { /* below the smallest normal half: adding 0.5 rounds to multiples of 2^-24 */
        float small;
        memcpy(&small, &bits, sizeof small);
        small += 0.5f;
        memcpy(&bits, &small, sizeof bits);
        return sign | (uint16_t)(bits - 0x3f000000);
    }
    return sign | (uint16_t)((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13);
}

static float bfloat_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t float_to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A row of logits as contiguous floats: itself, or a copy. */
ISA static const float *logits_row(const rows_job *job, int64_t row, float *staged) {
    int64_t begin = row * job->row_stride, step = job->column_stride;
    if (job->logits_type == FLOAT32) {
        const float *x = (const float *)job->logits + begin;
        if (step == 1) return x;
        for (int64_t k = 0; k < job->bins; k++) staged[k] = x[k * step];
        return staged;
    }
    const uint16_t *x = (const uint16_t *)job->logits + begin;
    if (job->logits_type == BFLOAT16)
        for (int64_t k = 0; k < job->bins; k++) staged[k] = bfloat_to_float(x[k * step]);
    else
        for (int64_t k = 0; k < job->bins; k++) staged[k] = half_to_float(x[k * step]);
    return staged;
}

/* Where the targets of a block lie: the first bin of each one's window, and its polynomials' row and argument. */
typedef struct {
    int64_t first[BLOCK], piece[BLOCK];
    float argument[BLOCK];
    int64_t lost[BLOCK], any_lost; /* whether the target is NaN */
} places;

/* The loops over a block's samples have no branches and one width, so that compilers make vectors of them. */
ISA static void place_targets(const rows_job *job, const int64_t *sample, int count, places *where, rows_seen *seen) {
    const rows_plan plan = *job->plan;
    const double pieces = plan.pieces;
    double value[BLOCK], position[BLOCK], cell[BLOCK], along[BLOCK], piece[BLOCK];
    for (int r = count; r < BLOCK; r++) value[r] = plan.highest / 2 + plan.lowest / 2;
    if (job->target_is_double)
        for (int r = 0; r < count; r++) value[r] = ((const double *)job->target)[sample[r]];
    else
        for (int r = 0; r < count; r++) value[r] = ((const float *)job->target)[sample[r]];
    /* A float that is an end of the range, rounded, is no target outside. */
    const double least = job->target_is_double ? plan.lowest : (double)(float)plan.lowest;
    const double most = job->target_is_double ? plan.highest : (double)(float)plan.highest;
    int64_t clipped = 0, nan = 0;
    for (int r = 0; r < BLOCK; r++) {
        clipped += (value[r] < least) | (value[r] > most);
        where->lost[r] = value[r] != value[r];
        nan += where->lost[r];
    }
    seen->clipped += clipped;
    seen->nan += nan;
    where->any_lost = nan;
    for (int r = 0; r < BLOCK; r++) {
        double y = value[r] > plan.lowest ? value[r] : plan.lowest;
        y = y < plan.highest ? y : plan.highest;
        y = (y - plan.origin) / plan.width;
        y = y > 0 ? y : 0;
        position[r] = y < plan.last ? y : plan.last;
        cell[r] = __builtin_floor(position[r]);
    }
    if (plan.place == PLACE_CELL) {
        for (int r = 0; r < BLOCK; r++) {
            along[r] = (position[r] - cell[r]) * pieces;
            piece[r] = __builtin_floor(along[r]);
        }
    } else if (plan.place == PLACE_BIN) {
        for (int r = 0; r < BLOCK; r++) {
            double bin = __builtin_ceil(position[r]) - 1;
            cell[r] = bin > 0 ? bin : 0;
            along[r] = piece[r] = 0;
        }
    } else {
        for (int r = 0; r < BLOCK; r++) {
            double fraction = position[r] - cell[r];
            double distance = (fraction > 0.5 ? 1 - fraction : fraction) * plan.scale;
            distance = distance < pieces ? distance : pieces;
            double whole = __builtin_floor(distance);
            whole = whole < pieces ? whole : pieces - 1;
            piece[r] = fraction > 0.5 ? whole + pieces : whole;
            along[r] = distance - whole + piece[r];
        }
    }
    for (int r = 0; r < BLOCK; r++) {
        where->first[r] = (int64_t)cell[r] - plan.before;
        where->piece[r] = (int64_t)piece[r];
        where->argument[r] = (float)(2 * (along[r] - piece[r]) - 1);
    }
}

/* Masses of one target into `masses`; partial sums of p and of p x. */
INLINE void window_masses(const rows_plan *plan, int64_t first, int64_t piece, float argument, const float *x,
                          float *masses, float *partial_p, float *partial_px) {
    const int64_t window = plan->window, bins = plan->bins;
    const float *c = plan->profile + piece * (DEGREE + 1) * window;
    vf s = v_set(argument), sum_p = v_set(0), sum_px = v_set(0);
    for (int64_t j = 0; j < window; j += V, c += V) {
        vf p = v_load(c + DEGREE * window);
        for (int d = DEGREE - 1; d >= 0; d--) p = v_fma(p, s, v_load(c + d * window));
        /* A polynomial may come out a trifle below 0 where the mass is 0. */
        p = v_positive_within(p, first + j, bins);
        v_store(masses + j, p);
        sum_p = v_add(sum_p, p);
        sum_px = v_fma(p, v_load_where_mass(x, first + j, p), sum_px);
    }
    v_store(partial_p, sum_p);
    v_store(partial_px, sum_px);
}

/* The target distribution of a sample as K floats: itself, or moved by the Bellman update. */
ISA static const float *distribution(const rows_job *job, int64_t sample, float *moved) {
    const float *probs = job->probs + sample * job->bins;
    if (!job->reward) return probs;
    int64_t bins = job->bins;
    double reward = job->reward[sample], discount = job->discount[sample];
    memset(moved, 0, (size_t)bins * sizeof *moved);
    for (int64_t k = 0; k < bins; k++) {
        double position = (reward + discount * (job->origin + (double)k * job->width) - job->origin) / job->width;
        if (position != position) {
            moved[0] = NAN;
            return moved;
        }
        position = position < 0 ? 0 : position > (double)(bins - 1) ? (double)(bins - 1) : position;
        int64_t below = (int64_t)position;
        float above = (float)(position - (double)below);
        moved[below] += probs[k] * (1 - above);
        if (below + 1 < bins) moved[below + 1] += probs[k] * above;
    }
    return moved;
}

/* What is summed over all bins of a row, lane by lane. */
typedef struct {
    vf e, p, px, mean;
} lane_sums;

/* Step 1 of a vector of logits `x`, which are those of bins `number` from the middle. */
INLINE vf exponential(vf x, vf shift, vf number, int stats, lane_sums *sums) {
    vf e = v_exp(v_bounded(v_sub(x, shift)));
    sums->e = v_add(sums->e, e);
    if (stats) sums->mean = v_fma(e, number, sums->mean);
    return e;
}

INLINE void cross(vf x, vf shift, vf mass, lane_sums *sums) {
    sums->p = v_add(sums->p, mass);
    sums->px = v_fma(mass, v_where_mass(v_sub(x, shift), mass), sums->px);
}

/* Bins that are summed by themselves before their sum is added: one float a lane for a million terms would lose digits.
 * Shorter rows are summed in one go. */
enum { RUN = 1024 };

INLINE void add_sums(lane_sums *sums, const lane_sums *more) {
    sums->e = v_add(sums->e, more->e);
    sums->p = v_add(sums->p, more->p);
    sums->px = v_add(sums->px, more->px);
    sums->mean = v_add(sums->mean, more->mean);
}

/* Bins `first` to `end`, whole vectors. */
INLINE void exponentials_of(int64_t first, int64_t end, int64_t bins, const float *x, const float *p, vf shift, int stats,
                            float *exps, lane_sums *sums) {
    vf number = v_add(v_lane_numbers(), v_set((float)first - 0.5f * (float)(bins - 1)));
    for (int64_t k = first; k < end; k += V) {
        v_store(exps + k, exponential(v_load(x + k), shift, number, stats, sums));
        if (p) cross(v_load(x + k), shift, v_load(p + k), sums);
        if (stats) number = v_add(number, v_set(V));
    }
}

/* Step 1 of a row: exponentials relative to `relative_to`, and the sums; with `p`, those of the target too. Inlined
 * with constants for `bins_whole` (bins in whole vectors) and `stats`, loops and conditions vanish. */
INLINE void exponentials(int64_t bins, int64_t bins_whole, const float *x, const float *p, float relative_to, int stats,
                         float *exps, const scratch_parts *parts, int row) {
    lane_sums sums = {v_set(0), v_set(0), v_set(0), v_set(0)};
    const vf shift = v_set(relative_to);
    const int left = (int)(bins - bins_whole);
    if (bins_whole <= RUN)
        exponentials_of(0, bins_whole, bins, x, p, shift, stats, exps, &sums);
    else
        for (int64_t first = 0; first < bins_whole; first += RUN) {
            lane_sums run = {v_set(0), v_set(0), v_set(0), v_set(0)};
            int64_t end = first + RUN < bins_whole ? first + RUN : bins_whole;
            exponentials_of(first, end, bins, x, p, shift, stats, exps, &run);
            add_sums(&sums, &run);
        }
    if (left) {
        const int64_t k = bins_whole;
        vf number = v_add(v_lane_numbers(), v_set((float)k - 0.5f * (float)(bins - 1)));
        v_store(exps + k, exponential(v_load_first(x + k, left, -INFINITY), shift, number, stats, &sums));
        if (p) cross(v_load_first(x + k, left, 0), shift, v_load_first(p + k, left, 0), &sums);
    }
    v_store(parts->partial_e + row * V, sums.e);
    if (p) {
        v_store(parts->partial_p + row * V, sums.p);
        v_store(parts->partial_px + row * V, sums.px);
    }
    if (stats) v_store(parts->partial_mean + row * V, sums.mean);
}

/* Calls STEP(bins in whole vectors, stats), with constants where rows are short. */
#define WITH_CONSTANTS(STEP, bins, stats)                                                                              \
    do {                                                                                                               \
        if (stats) {                                                                                                   \
            STEP((bins) & ~(int64_t)(V - 1), 1);                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
        switch ((bins) / V) {                                                                                          \
            case 1: STEP(1 * V, 0); break;                                                                             \
            case 2: STEP(2 * V, 0); break;                                                                             \
            case 3: STEP(3 * V, 0); break;                                                                             \
            case 4: STEP(4 * V, 0); break;                                                                             \
            case 6: STEP(6 * V, 0); break;                                                                             \
            case 8: STEP(8 * V, 0); break;                                                                             \
            default: STEP((bins) & ~(int64_t)(V - 1), 0);                                                              \
        }                                                                                                              \
    } while (0)

/* The largest logit; NaN is overlooked, as a row with one is NaN throughout, whatever it is shifted by. */
INLINE float largest_of(const float *x, int64_t bins) {
    vf largest = v_set(-INFINITY);
    float lanes[V], most = -INFINITY;
    for (int64_t k = 0; k < bins; k += V)
        largest = v_max(v_load_first(x + k, bins - k < V ? (int)(bins - k) : V, -INFINITY), largest);
    v_store(lanes, largest);
    for (int l = 0; l < V; l++) most = lanes[l] > most ? lanes[l] : most;
    return most;
}

/* sum_e exps of 16 lanes at a row's partial sums, in the order of v_sum_rows. */
typedef struct {
    float e[BLOCK], p[BLOCK], px[BLOCK], mean[BLOCK];
} row_sums;

INLINE void sum_rows(const scratch_parts *parts, int stats, row_sums *sums) {
    v_sum_rows(parts->partial_e, sums->e);
    v_sum_rows(parts->partial_p, sums->p);
    v_sum_rows(parts->partial_px, sums->px);
    if (stats) v_sum_rows(parts->partial_mean, sums->mean);
}

/* Step 3 writes a block's gradient in one burst; the caches had better have its lines by then. */
INLINE void fetch_for_writing(const char *gradient, int64_t row, int64_t row_bytes) {
    const char *end = gradient + (row + 1) * row_bytes, *g = end - row_bytes;
    for (g -= (uintptr_t)g % 64; g < end; g += 64) __builtin_prefetch(g, 1);
}

INLINE void fetch_for_reading(const rows_job *job, int64_t row) {
    const int64_t size = job->logits_type == FLOAT32 ? 4 : 2;
    const char *x = (const char *)job->logits + row * job->row_stride * size;
    for (int64_t i = 0; i < job->bins * size; i += 64) __builtin_prefetch(x + i, 0);
}

/* The masses of bins k .. k + V - 1: zeros where the window is elsewhere. */
INLINE vf masses_at(const float *masses, int64_t k, int64_t first, int64_t window) {
    int64_t j = k - first;
    j = j < -PADDING ? -PADDING : j;
    j = j > window ? window : j;
    return v_load(masses + j);
}

/* Step 3 of a row whose target is a window: g = e by_e + p by_p. To add p only where it is would mean to read what was
 * stored a moment ago in other pieces, for which processors wait; adding zeros elsewhere costs less. */
INLINE void windowed_row(float *g, int64_t bins, int64_t bins_whole, const float *exps, float by_e, const float *masses,
                         int64_t first, int64_t window, float by_p) {
    const vf scale_e = v_set(by_e), scale_p = v_set(by_p);
    for (int64_t k = 0; k < bins_whole; k += V)
        v_store(g + k, v_fma(masses_at(masses, k, first, window), scale_p, v_mul(v_load(exps + k), scale_e)));
    if (bins_whole < bins) {
        const int64_t k = bins_whole;
        v_store_first(g + k, v_fma(masses_at(masses, k, first, window), scale_p, v_mul(v_load(exps + k), scale_e)),
                      (int)(bins - k));
    }
}

/* Step 3 of a row whose target is a whole distribution. */
INLINE void dense_row(float *g, int64_t bins, const float *exps, float by_e, const float *p, float by_p) {
    const vf scale_e = v_set(by_e), scale_p = v_set(by_p);
    for (int64_t k = 0; k < bins; k += V) {
        int left = bins - k < V ? (int)(bins - k) : V;
        v_store_first(g + k, v_fma(v_load_first(p + k, left, 0), scale_p, v_mul(v_load(exps + k), scale_e)), left);
    }
}

/* A finished row of the gradient, from scratch to where it belongs. */
ISA static void deliver(const rows_job *job, int64_t row, const float *finished) {
    int64_t bins = job->bins;
    if (job->accumulate) {
        float *g = (float *)job->gradient + row * bins;
        for (int64_t k = 0; k < bins; k++) g[k] += finished[k];
    } else if (job->logits_type == BFLOAT16) {
        uint16_t *g = (uint16_t *)job->gradient + row * bins;
        for (int64_t k = 0; k < bins; k++) g[k] = float_to_bfloat(finished[k]);
    } else {
        uint16_t *g = (uint16_t *)job->gradient + row * bins;
        for (int64_t k = 0; k < bins; k++) g[k] = float_to_half(finished[k]);
    }
}

/* -sum q log q from terms that are none of them below 0. log_sum - (sum e x) / sum e would take two numbers as large as
 * the logits from each other. */
ISA static float entropy(const float *x, int64_t bins, const float *exps, float log_sum, float sum_e, float shift) {
    const vf log_sums = v_set(log_sum), shifts = v_set(shift);
    double sum = 0;
    for (int64_t first = 0; first < bins; first += RUN) {
        vf terms = v_set(0);
        for (int64_t k = first; k < bins && k < first + RUN; k += V) {
            vf e = v_load(exps + k), a = v_load_first(x + k, bins - k < V ? (int)(bins - k) : V, 0);
            terms = v_fma(e, v_where_mass(v_sub(log_sums, v_sub(a, shifts)), e), terms);
        }
        float lanes[V];
        v_store(lanes, terms);
        for (int l = 0; l < V; l++) sum += lanes[l];
    }
    return (float)(sum / sum_e);
}

ISA static void store_stats(const rows_job *job, int64_t sample, const float *x, const float *exps, float log_sum,
                            float sum_e, float mean, float shift, const float *p) {
    job->logsumexp[sample] = log_sum + shift;
    job->entropy[sample] = entropy(x, job->bins, exps, log_sum, sum_e, shift);
    job->mean[sample] = mean / sum_e;
    if (job->centres) {
        /* Centres spaced by symexp reach 5e8: in pairs from both ends, mirrored bins cancel. */
        double sum = 0;
        for (int64_t k = 0, last = job->bins - 1; k <= last; k++, last--)
            sum += k == last ? exps[k] * job->centres[k] : exps[k] * job->centres[k] + exps[last] * job->centres[last];
        job->mean[sample] = (float)(sum / sum_e);
    }
    if (p && job->target_mean) {
        double sum = 0;
        for (int64_t k = 0; k < job->bins; k++) sum += (double)k * p[k];
        job->target_mean[sample] = (float)sum;
    }
}

/* A sample whose sum of exponentials is too small, too large or no number is done again, relative to its maximum. */
ISA static void again(const rows_job *job, const scratch_parts *parts, const float *x, const float *p, int64_t first,
                      int row, float *shift) {
    *shift = largest_of(x, job->bins);
    exponentials(job->bins, job->bins & ~(int64_t)(V - 1), x, p, *shift, job->mean != NULL,
                 parts->exps + row * parts->stride, parts, row);
    if (p) return;
    const float *mass = parts->masses + row * parts->window;
    float *px = parts->partial_px + row * V;
    for (int l = 0; l < V; l++) px[l] = 0;
    for (int64_t j = 0; j < job->plan->window; j++)
        if (mass[j] != 0) px[j % V] += mass[j] * (x[first + j] - *shift);
}

#define ENOUGH 9.3e-14f /* e^-30 */
#define TOO_MUCH 2.3e17f /* e^40 */

/* Two-pass softmax (Dukhan & Ablavatski 2020, "Two-pass softmax algorithm", arXiv 2001.04438), for rows that are too
 * long to be kept: sums of exponentials are pairs m 2^n, which cannot overflow and merge by shifting the smaller one, so
 * that no maximum is needed and nothing is stored between the passes. Tells whether it could: logits beyond a million
 * are left to the other way; without fused multiply-adds, those for which n times 0.693359375 is rounded. */
#define BEYOND (FUSED ? 1e6f : 2e4f)

/* (m 2^n) += (more 2^more_n), lane by lane: the smaller exponent moves to the larger. */
INLINE void merge(vf *m, vf *n, vf more, vf more_n) {
    vf top = v_max(*n, more_n);
    *m = v_fma(more, v_scale2(v_set(1), v_sub(more_n, top)), v_mul(*m, v_scale2(v_set(1), v_sub(*n, top))));
    *n = top;
}

ISA static int two_passes(const rows_job *job, const float *x, int64_t first, int64_t piece, float argument, int lost,
                          float weight, int64_t sample, int64_t row, const scratch_parts *parts) {
    const rows_plan *plan = job->plan;
    const int64_t bins = job->bins, whole = bins & ~(int64_t)(V - 1);
    const int left = (int)(bins - whole);
    vf mantissa = v_set(0), exponent = v_set(-2e6f);
    for (int64_t begin = 0; begin < bins; begin += RUN) {
        vf run = v_set(0), run_exponent = v_set(-2e6f);
        for (int64_t k = begin; k < bins && k < begin + RUN; k += V) {
            vf a = k < whole ? v_load(x + k) : v_load_first(x + k, left, -INFINITY), n;
            vf p = v_exp_parts(v_max(v_set(-BEYOND), a), &n);
            merge(&run, &run_exponent, p, n);
        }
        merge(&mantissa, &exponent, run, run_exponent);
    }
    float m[V], n[V];
    v_store(m, mantissa), v_store(n, exponent);
    float top = n[0], sum = 0;
    for (int l = 1; l < V; l++) top = n[l] > top ? n[l] : top;
    for (int l = 0; l < V; l++) sum += ldexpf(m[l], n[l] - top >= -200 ? (int)(n[l] - top) : -200);
    if (!(top > -1.4f * BEYOND && top < 1.4f * BEYOND)) return 0;

    float partial_p[V], partial_px[V], mass = 0, px = 0;
    float *masses = parts->masses;
    window_masses(plan, first, piece, argument, x, masses, partial_p, partial_px);
    for (int l = 0; l < V; l++) mass += partial_p[l];
    for (int64_t j = 0; j < plan->window; j++)
        if (masses[j] != 0) px += masses[j] * (float)((double)x[first + j] - (double)top * 0.6931471805599453);
    job->loss[sample] = lost ? NAN : logf(sum) - px / mass;
    if (!job->gradient) return 1;

    const int direct = job->logits_type == FLOAT32 && !job->accumulate;
    float *g = direct ? (float *)job->gradient + row * bins : parts->staged;
    const float slope = job->coefficient * weight;
    const vf by_e = v_set(lost ? NAN : slope / sum), by_p = v_set(-slope / mass), down = v_set(top);
    for (int64_t k = 0; k < bins; k += V) {
        vf a = k < whole ? v_load(x + k) : v_load_first(x + k, left, -INFINITY), exponent_of_a;
        vf p = v_exp_parts(v_max(v_set(-BEYOND), a), &exponent_of_a);
        vf e = v_scale2(p, v_sub(exponent_of_a, down));
        vf slopes = v_fma(masses_at(masses, k, first, plan->window), by_p, v_mul(e, by_e));
        if (k < whole)
            v_store(g + k, slopes);
        else
            v_store_first(g + k, slopes, left);
    }
    if (!direct) deliver(job, row, g);
    return 1;
}

/* Samples of weight 0 need no logits: their results are 0. The others are moved to the front; tells how many. */
ISA static int sort_out(const rows_job *job, const int64_t *given, int count, int64_t *sample, float *weight) {
    int kept = 0;
    for (int r = 0; r < count; r++) {
        int64_t i = given[r];
        float w = job->weight ? job->weight[i] : 1;
        sample[kept] = i;
        weight[kept] = w;
        kept += w != 0;
        if (w != 0) continue;
        job->loss[i] = 0;
        if (job->mean) job->mean[i] = job->entropy[i] = job->logsumexp[i] = 0;
        if (job->target_mean) job->target_mean[i] = 0;
        if (job->gradient && !job->accumulate) {
            size_t size = (size_t)job->bins * (job->logits_type == FLOAT32 ? 4 : 2);
            memset((char *)job->gradient + (size_t)i * size, 0, size);
        }
    }
    for (int r = kept; r < BLOCK; r++) weight[r] = 0;
    return kept;
}

/* Share `part` of `parts` of what is pending, past the caches. */
INLINE void write_out(rows_seen *seen, int part, int parts) {
    int64_t lines = seen->pending / 16, first = lines * part / parts, end = lines * (part + 1) / parts;
    v_stream(seen->pending_to + first * 16, seen->pending_from + first * 16, (end - first) * 16);
    if (part + 1 == parts) seen->pending = 0;
}

ISA void NAMED(rows_block, SUFFIX)(const rows_job *shared_job, const int64_t *given, int count, float *scratch,
                                   rows_seen *seen) {
    const rows_job job = *shared_job; /* a copy of its own: no store may change it */
    const int has_plan = job.plan != NULL, stats = job.mean != NULL;
    const rows_plan plan = has_plan ? *job.plan : (rows_plan){0};
    const scratch_parts parts = parts_of(&job, scratch);
    const int64_t bins = job.bins, stride = parts.stride;
    const int64_t row_bytes = bins * (job.logits_type == FLOAT32 || job.accumulate ? 4 : 2);
    const float *x[BLOCK], *p[BLOCK];
    int64_t sample[BLOCK], row[BLOCK];
    places where;
    float weight[BLOCK] ALIGNED, shift[BLOCK] = {0}, log_e[BLOCK] ALIGNED, loss[BLOCK] ALIGNED;
    float by_e[BLOCK] ALIGNED, by_p[BLOCK] ALIGNED;
    row_sums sums ALIGNED;

    count = sort_out(&job, given, count, sample, weight);
    if (!count) {
        if (seen->pending) write_out(seen, 0, 1);
        v_fence();
        return;
    }
    for (int r = 0; r < count; r++) {
        row[r] = job.index ? job.index[sample[r]] : sample[r];
        x[r] = logits_row(&job, row[r], parts.staged + r * stride);
    }
    if (has_plan) place_targets(&job, sample, count, &where, seen);
    if (has_plan && count == 1 && bins >= job.two_passes_from && !stats &&
        two_passes(&job, x[0], where.first[0], where.piece[0], where.argument[0], where.lost[0] != 0, weight[0], sample[0],
                   row[0], &parts))
        return;
    if (has_plan) {
#define STEP(bins_whole, stats)                                                                                        \
    for (int r = 0; r < count; r++) {                                                                                  \
        if (job.stream) {                                                                                              \
            if (seen->pending) write_out(seen, r, count);                                                              \
            fetch_for_reading(&job, row[r] + BLOCK);                                                                   \
        } else if (job.gradient)                                                                                       \
            fetch_for_writing(job.gradient, row[r], row_bytes);                                                        \
        exponentials(bins, bins_whole, x[r], NULL, 0, stats, parts.exps + r * stride, &parts, r);                      \
        window_masses(&plan, where.first[r], where.piece[r], where.argument[r], x[r], parts.masses + r * parts.window, \
                      parts.partial_p + r * V, parts.partial_px + r * V);                                              \
    }
        WITH_CONSTANTS(STEP, bins, stats);
#undef STEP
    } else
        for (int r = 0; r < count; r++) {
            p[r] = distribution(&job, sample[r], parts.moved + r * stride);
            exponentials(bins, bins & ~(int64_t)(V - 1), x[r], p[r], 0, stats, parts.exps + r * stride, &parts, r);
        }

    sum_rows(&parts, stats, &sums);
    int unfit = 0;
    for (int l = 0; l < BLOCK; l += V) unfit |= v_any_outside(v_load(sums.e + l), ENOUGH, TOO_MUCH);
    if (unfit) {
        for (int r = 0; r < count; r++)
            if (!(sums.e[r] >= ENOUGH && sums.e[r] <= TOO_MUCH))
                again(&job, &parts, x[r], has_plan ? NULL : p[r], has_plan ? where.first[r] : 0, r, &shift[r]);
        sum_rows(&parts, stats, &sums);
    }

    for (int l = 0; l < BLOCK; l += V) {
        vf e = v_load(sums.e + l), sum_p = v_load(sums.p + l), px = v_load(sums.px + l);
        /* The logarithm takes bits apart; with this a sum that is NaN stays so. */
        vf log_sum = v_fma(e, v_set(0), v_log(e));
        v_store(log_e + l, log_sum);
        v_store(loss + l, has_plan ? v_sub(log_sum, v_div(px, sum_p)) : v_sub(v_mul(sum_p, log_sum), px));
        vf slope = v_mul(v_set(job.coefficient), v_load(weight + l)), minus = v_sub(v_set(0), slope);
        v_store(by_e + l, v_div(has_plan ? slope : v_mul(slope, sum_p), e));
        v_store(by_p + l, has_plan ? v_div(minus, sum_p) : minus);
    }
    if (has_plan && where.any_lost)
        for (int r = 0; r < count; r++)
            if (where.lost[r]) loss[r] = by_e[r] = NAN;
    for (int r = 0; r < count; r++) job.loss[sample[r]] = loss[r];
    if (stats)
        for (int r = 0; r < count; r++)
            store_stats(&job, sample[r], x[r], parts.exps + r * stride, log_e[r], sums.e[r], sums.mean[r], shift[r],
                        has_plan ? NULL : p[r]);
    if (!job.gradient) return;

    /* Where the whole would not fit into the caches, rows that lie side by side go past them as one piece. It is written
     * out bit by bit while the next block is computed: all at once would be waited for. */
    const int stream = job.stream && row[count - 1] - row[0] == count - 1 && row[0] * bins % 16 == 0 && count * bins % 16 == 0;
    const int direct = job.logits_type == FLOAT32 && !job.accumulate && !stream;
    const int64_t staged_stride = stream ? bins : stride;
#define DESTINATION (direct ? (float *)job.gradient + row[r] * bins : parts.staged + r * staged_stride)
    if (has_plan) {
#define STEP(bins_whole, stats)                                                                                        \
    for (int r = 0; r < count; r++)                                                                                    \
        windowed_row(DESTINATION, bins, bins_whole, parts.exps + r * stride, by_e[r], parts.masses + r * parts.window, \
                     where.first[r], plan.window, by_p[r]);
        WITH_CONSTANTS(STEP, bins, 0);
#undef STEP
    } else
        for (int r = 0; r < count; r++) dense_row(DESTINATION, bins, parts.exps + r * stride, by_e[r], p[r], by_p[r]);
#undef DESTINATION
    if (stream)
        seen->pending_to = (float *)job.gradient + row[0] * bins, seen->pending_from = parts.staged,
        seen->pending = count * bins;
    else if (!direct)
        for (int r = 0; r < count; r++) deliver(&job, row[r], parts.staged + r * stride);
}
