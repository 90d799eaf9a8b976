#if defined(__x86_64__)
#include "rows.h"

#include <math.h>
#include <string.h>

#include "isa_avx512.h"
#define SUFFIX avx512
#include "rows_block.h"
#endif
