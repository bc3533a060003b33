/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that fails. Linked with --wrap=malloc,--wrap=calloc,--wrap=realloc. */
#ifndef HALO_MEMORY_H
#define HALO_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

extern uint32_t memory_failing; /* so many of a hundred requests, */
extern bool memory_inside;      /* while this is set: not those of the test itself */
extern uint32_t memory_failed;  /* so many have */

#endif
