/* SPDX-License-Identifier: Apache-2.0 */
/* KCP, for C: kcp_def.h once. */
#ifndef HALO_KCP_H
#define HALO_KCP_H

#include <stdint.h>

#include <halo/kcp_def.h>

#endif
