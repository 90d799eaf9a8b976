/* A sum-tree over float64 masses, in one array: node 1 is the root, node n has the children 2n and 2n + 1, and the leaves
 * are the last half. Sums are made anew on the way up and never adjusted by differences, so that they do not drift. */
#include "sum_tree.h"

void sum_tree_set(double *nodes, int64_t leaves, const int64_t *index, const double *mass, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        int64_t node = leaves + index[i];
        nodes[node] = mass[i];
        for (node >>= 1; node; node >>= 1) nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
    }
}

void sum_tree_find(const double *nodes, int64_t leaves, const double *place, int64_t *index, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        double left = place[i];
        int64_t node = 1;
        while (node < leaves) {
            double before = nodes[2 * node];
            /* Where rounding leaves a place beyond all mass, the last leaf that has any is found. */
            int right = left >= before && nodes[2 * node + 1] > 0;
            left -= right ? before : 0;
            node = 2 * node + right;
        }
        index[i] = node - leaves;
    }
}
