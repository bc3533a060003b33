/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HALO_RESERVE_H
#define HALO_RESERVE_H

#include <stdint.h>

#include <halo/reserve_def.h>

/* Where the process is told; made by cffi, in Python. */
void halo_reserve_used(void);

#endif
