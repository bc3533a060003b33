/* SPDX-License-Identifier: Apache-2.0 */
/* GF(2^8) as Reed-Solomon codes use it: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d); x generates it. */
#ifndef HALO_GF256_H
#define HALO_GF256_H

#include <stdint.h>

uint8_t halo_gf_multiply(uint8_t a, uint8_t b);
/* Of any but 0. */
uint8_t halo_gf_inverse(uint8_t a);

/* sum += factor * octets, for each octet. */
void halo_gf_add_multiple(uint8_t *sum, const uint8_t *octets, uint32_t length, uint8_t factor);

#endif
