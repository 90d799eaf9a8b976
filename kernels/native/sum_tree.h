#ifndef ISOGON_SUM_TREE_H
#define ISOGON_SUM_TREE_H

#include <stdint.h>

/* Set leaves' masses. leaves is a power of two, nodes has twice as many; the last of equal indices stands. */
void sum_tree_set(double *nodes, int64_t leaves, const int64_t *index, const double *mass, int64_t count);

/* For each place in [0, total) the leaf in whose stretch it lies, leaves laid end to end. */
void sum_tree_find(const double *nodes, int64_t leaves, const double *place, int64_t *index, int64_t count);

#endif
