#if defined(__x86_64__)
#include "rows.h"

#include <math.h>
#include <string.h>

#include "isa_avx2.h"
#define SUFFIX avx2
#include "rows_block.h"
#endif
