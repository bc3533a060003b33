/* SPDX-License-Identifier: Apache-2.0 */
/* C side of the driver's declarations. */
#ifndef HALO_DRIVER_H
#define HALO_DRIVER_H

#include <halo/layout.h>
#include <halo/driver_def.h>

#endif
