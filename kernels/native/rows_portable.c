#include "rows.h"

#include "isa_portable.h"
#define SUFFIX portable
#include "rows_block.h"
