/* The Python module isogon.kernels._native: pointers in, numbers out. Shapes and types are checked by the caller.
 *
 * Threads are made for a call and joined before it returns. A pool would save some 20 us on calls of milliseconds, but
 * would not survive a fork, and a spinning one would take cores from the processes beside it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rows.h"
#include "sum_tree.h"

static rows_block *block_of_this_machine = rows_block_portable;
static const char *instruction_set = "portable";

/* The vectors that are used: the widest that the processor has, or the one that is asked for. */
static int choose_instruction_set(const char *wanted) {
    if (!strcmp(wanted, "portable")) {
        block_of_this_machine = rows_block_portable, instruction_set = "portable";
        return 1;
    }
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && !strcmp(wanted, "avx512")) {
        block_of_this_machine = rows_block_avx512, instruction_set = "avx512";
        return 1;
    }
    if (avx2 && !strcmp(wanted, "avx2")) {
        block_of_this_machine = rows_block_avx2, instruction_set = "avx2";
        return 1;
    }
#endif
    return 0;
}

/* Bytes of the last level of cache. Linux's own number comes first: glibc's can be that of all of a processor's parts
 * together, of which a core reaches one. */
static int64_t last_level_cache(void) {
    long size = 0;
    char unit = 0;
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file) {
        if (fscanf(file, "%ld%c", &size, &unit) < 1) size = 0;
        fclose(file);
        size <<= unit == 'K' ? 10 : unit == 'M' ? 20 : 0;
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    if (size <= 0) size = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return size > 0 ? size : 32L << 20;
}

/* Bytes of logits and gradient above which stores that bypass the caches pay: what does not stay in the last level would
 * only be fetched to be overwritten. */
static int64_t streaming_above;

/* Rows of fewer bins are kept in scratch between passes, see two_passes. The benchmark of the kernels compares both. */
static int64_t two_passes_from = 1 << 22;

/* Rows of a block: as many as the first two levels of cache keep, with their exponentials. */
static int32_t rows_of_a_block(int64_t bins) {
    int64_t fitting = bins >= two_passes_from ? 1 : (1 << 14) / bins;
    return fitting < 1 ? 1 : fitting > BLOCK ? BLOCK : (int32_t)fitting;
}

/* Samples that are worth a thread of their own: about 100 us of work. */
#define WORK_OF_A_THREAD 100000

typedef struct {
    const rows_job *job;
    int64_t first, end; /* of samples; or, where gradients add up, of the rows that this thread owns */
    rows_seen seen;
    int failed;
    pthread_t thread;
} share;

static void *work(void *argument) {
    share *mine = argument;
    const rows_job *job = mine->job;
    float *scratch;
    if (posix_memalign((void **)&scratch, 64, rows_scratch_floats(job) * sizeof(float))) {
        mine->failed = 1;
        return NULL;
    }
    memset(scratch, 0, rows_zeroed_floats(job) * sizeof(float));
    int64_t sample[BLOCK];
    int count = 0;
    int64_t first = job->accumulate ? 0 : mine->first, end = job->accumulate ? job->samples : mine->end;
    for (int64_t i = first; i < end; i++) {
        if (job->accumulate && (job->index[i] < mine->first || job->index[i] >= mine->end)) continue;
        sample[count++] = i;
        if (count == job->block) {
            block_of_this_machine(job, sample, count, scratch, &mine->seen);
            count = 0;
        }
    }
    if (count) block_of_this_machine(job, sample, count, scratch, &mine->seen);
    if (job->stream) block_of_this_machine(job, sample, 0, scratch, &mine->seen);
    free(scratch);
    return NULL;
}

/* Partial sums, and masses with zeros around them. */
size_t rows_zeroed_floats(const rows_job *job) {
    return BLOCK * 4 * 16 + (size_t)job->block * (job->plan ? (size_t)job->plan->window + 32 : 0);
}

size_t rows_scratch_floats(const rows_job *job) {
    size_t stride = ((size_t)job->bins + 15) & ~(size_t)15;
    return rows_zeroed_floats(job) + (size_t)job->block * 3 * stride;
}

enum { MOST_THREADS = 256 };

/* Every sample once. A sample's result hangs on nothing but the sample, so the number of threads changes no bit. */
static int run(const rows_job *job, int64_t rows, int threads, rows_seen *seen) {
    int64_t whole = job->accumulate ? rows : job->samples;
    int64_t useful = job->samples * job->bins / WORK_OF_A_THREAD + 1;
    if (threads > useful) threads = (int)useful;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads < 1) threads = 1;
    share shares[MOST_THREADS];
    for (int t = 0; t < threads; t++) {
        shares[t] = (share){.job = job, .first = whole * t / threads, .end = whole * (t + 1) / threads};
        if (!job->accumulate) { /* whole blocks */
            shares[t].first = shares[t].first / job->block * job->block;
            if (t + 1 < threads) shares[t].end = shares[t].end / job->block * job->block;
        }
    }
    int started = 1;
    while (started < threads && !pthread_create(&shares[started].thread, NULL, work, &shares[started])) started++;
    work(&shares[0]);
    /* Where no more threads can be had, this one does their work. */
    for (int t = started; t < threads; t++) work(&shares[t]);
    for (int t = 1; t < started; t++) pthread_join(shares[t].thread, NULL);
    int failed = 0;
    *seen = (rows_seen){0};
    for (int t = 0; t < threads; t++) {
        failed |= shares[t].failed;
        seen->clipped += shares[t].seen.clipped;
        seen->nan += shares[t].seen.nan;
    }
    return !failed;
}

/* sum_i weight_i loss_i in float64, in an order of its own whatever the threads were. */
static double weighted_sum(const float *loss, const float *weight, int64_t n) {
    double sums[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += weight ? (double)weight[i + j] * loss[i + j] : loss[i + j];
    for (; i < n; i++) sums[i & 7] += weight ? (double)weight[i] * loss[i] : loss[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static void free_plan(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, "isogon.rows_plan")); }

static PyObject *plan(PyObject *self, PyObject *args) {
    (void)self;
    rows_plan made;
    unsigned long long profile;
    if (!PyArg_ParseTuple(args, "iiiiiddddddK", &made.place, &made.bins, &made.window, &made.before, &made.pieces,
                          &made.scale, &made.lowest, &made.highest, &made.origin, &made.width, &made.last,
                          &profile))
        return NULL;
    made.profile = (const float *)(uintptr_t)profile;
    rows_plan *kept = malloc(sizeof *kept);
    if (!kept) return PyErr_NoMemory();
    *kept = made;
    return PyCapsule_New(kept, "isogon.rows_plan", free_plan);
}

static void *pointer(PyObject *object) { return object == Py_None ? NULL : PyLong_AsVoidPtr(object); }

/* forward(plan or None, bins, samples, rows,
 *         logits, logits type, row stride, column stride, index,
 *         target, target is double, probs, reward, discount, origin, width,
 *         weight, coefficient, loss, total, gradient, mean, entropy, logsumexp, target mean, centres, threads)
 *  -> (clipped, nan) */
static PyObject *forward(PyObject *self, PyObject *const *a, Py_ssize_t n) {
    (void)self;
    if (n != 27) return PyErr_Format(PyExc_TypeError, "forward takes 27 arguments, not %zd", n);
    rows_job job = {
        .plan = a[0] == Py_None ? NULL : PyCapsule_GetPointer(a[0], "isogon.rows_plan"),
        .bins = PyLong_AsLongLong(a[1]),
        .samples = PyLong_AsLongLong(a[2]),
        .logits = pointer(a[4]),
        .logits_type = (int32_t)PyLong_AsLong(a[5]),
        .row_stride = PyLong_AsLongLong(a[6]),
        .column_stride = PyLong_AsLongLong(a[7]),
        .index = pointer(a[8]),
        .target = pointer(a[9]),
        .target_is_double = (int32_t)PyLong_AsLong(a[10]),
        .probs = pointer(a[11]),
        .reward = pointer(a[12]),
        .discount = pointer(a[13]),
        .origin = PyFloat_AsDouble(a[14]),
        .width = PyFloat_AsDouble(a[15]),
        .weight = pointer(a[16]),
        .coefficient = (float)PyFloat_AsDouble(a[17]),
        .loss = pointer(a[18]),
        .gradient = pointer(a[20]),
        .mean = pointer(a[21]),
        .entropy = pointer(a[22]),
        .logsumexp = pointer(a[23]),
        .target_mean = pointer(a[24]),
        .centres = pointer(a[25]),
    };
    job.accumulate = job.index != NULL && job.gradient != NULL;
    job.block = rows_of_a_block(job.bins > 0 ? job.bins : 1);
    job.two_passes_from = two_passes_from;
    int64_t rows = PyLong_AsLongLong(a[3]);
    job.stream = job.plan && job.gradient && !job.index && job.logits_type == FLOAT32 && job.column_stride == 1 &&
                 (uintptr_t)job.gradient % 64 == 0 && 2 * job.samples * job.bins * 4 > streaming_above;
    float *total = pointer(a[19]);
    int threads = (int)PyLong_AsLong(a[26]);
    if (PyErr_Occurred()) return NULL;
    rows_seen seen;
    int done;
    float few[256], *losses = NULL;
    if (!job.loss) { /* only the total is wanted */
        losses = job.samples <= 256 ? few : malloc((size_t)job.samples * sizeof *losses);
        if (!losses) return PyErr_NoMemory();
        if (job.accumulate) memset(losses, 0, (size_t)job.samples * sizeof *losses);
        job.loss = losses;
    }
    if (job.samples * job.bins < WORK_OF_A_THREAD / 10) /* letting others run costs more than this does */
        done = run(&job, rows, 1, &seen);
    else {
        Py_BEGIN_ALLOW_THREADS;
        done = run(&job, rows, threads, &seen);
        Py_END_ALLOW_THREADS;
    }
    if (done && total) *total = (float)(job.coefficient * weighted_sum(job.loss, job.weight, job.samples));
    if (losses != few) free(losses);
    if (!done) return PyErr_NoMemory();
    return Py_BuildValue("(LL)", (long long)seen.clipped, (long long)seen.nan);
}

static PyObject *get_instruction_set(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    return PyUnicode_FromString(instruction_set);
}

static PyObject *use_instruction_set(PyObject *self, PyObject *name) {
    (void)self;
    const char *wanted = PyUnicode_AsUTF8(name);
    if (!wanted) return NULL;
    if (!choose_instruction_set(wanted))
        return PyErr_Format(PyExc_ValueError, "instruction set is '%s': this processor or build has it not", wanted);
    Py_RETURN_NONE;
}

static PyObject *use_two_passes_from(PyObject *self, PyObject *bins) {
    (void)self;
    long long wanted = PyLong_AsLongLong(bins), before = two_passes_from;
    if (wanted == -1 && PyErr_Occurred()) return NULL;
    two_passes_from = wanted;
    return PyLong_FromLongLong(before);
}

static PyObject *use_streaming_above(PyObject *self, PyObject *bytes) {
    (void)self;
    long long wanted = PyLong_AsLongLong(bytes), before = streaming_above;
    if (wanted == -1 && PyErr_Occurred()) return NULL;
    streaming_above = wanted;
    return PyLong_FromLongLong(before);
}

/* set_masses(nodes, leaves, index, mass, count), find_masses(nodes, leaves, place, index out, count): addresses and sizes,
 * see sum_tree.h. Both take microseconds for a batch. */
static PyObject *set_masses(PyObject *self, PyObject *const *a, Py_ssize_t n) {
    (void)self;
    if (n != 5) return PyErr_Format(PyExc_TypeError, "set_masses takes 5 arguments, not %zd", n);
    double *nodes = pointer(a[0]);
    int64_t leaves = PyLong_AsLongLong(a[1]), count = PyLong_AsLongLong(a[4]);
    const int64_t *index = pointer(a[2]);
    const double *mass = pointer(a[3]);
    if (PyErr_Occurred()) return NULL;
    sum_tree_set(nodes, leaves, index, mass, count);
    Py_RETURN_NONE;
}

static PyObject *find_masses(PyObject *self, PyObject *const *a, Py_ssize_t n) {
    (void)self;
    if (n != 5) return PyErr_Format(PyExc_TypeError, "find_masses takes 5 arguments, not %zd", n);
    const double *nodes = pointer(a[0]), *place = pointer(a[2]);
    int64_t leaves = PyLong_AsLongLong(a[1]), count = PyLong_AsLongLong(a[4]);
    int64_t *index = pointer(a[3]);
    if (PyErr_Occurred()) return NULL;
    sum_tree_find(nodes, leaves, place, index, count);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"plan", plan, METH_VARARGS, "What is to be known of scalar targets, for `forward`; the profile must outlive it."},
    {"forward", (PyCFunction)(void (*)(void))forward, METH_FASTCALL, "Losses, gradients and stats of rows."},
    {"instruction_set", get_instruction_set, METH_NOARGS, "Which vectors are used: avx512, avx2 or portable."},
    {"use_instruction_set", use_instruction_set, METH_O, "Use other vectors: for tests and benchmarks."},
    {"use_two_passes_from", use_two_passes_from, METH_O,
     "Bins from which on rows are gone through twice: for tests and benchmarks. Gives the former number."},
    {"use_streaming_above", use_streaming_above, METH_O,
     "Bytes above which stores bypass the caches: for tests and benchmarks. Gives the former number."},
    {"set_masses", (PyCFunction)(void (*)(void))set_masses, METH_FASTCALL, "Set leaves of a sum-tree."},
    {"find_masses", (PyCFunction)(void (*)(void))find_masses, METH_FASTCALL, "Find leaves of a sum-tree by their mass."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Fused row kernels and a sum-tree in C.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    if (!choose_instruction_set("avx512") && !choose_instruction_set("avx2")) choose_instruction_set("portable");
    streaming_above = last_level_cache();
    return PyModule_Create(&definition);
}
