/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HALO_FASTPATH_H
#define HALO_FASTPATH_H

#include <halo/layout.h>
#include <halo/fastpath_def.h>

#endif
