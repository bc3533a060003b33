/* SPDX-License-Identifier: Apache-2.0 */
const char *halo_drop_name(unsigned int reason);
const char *halo_drop_text(unsigned int reason);
