# SPDX-License-Identifier: Apache-2.0
"""An instance live in a terminal or a browser: `python -m halo_mp.dashboard`. Needs the extra `halo-mp[dashboard]`.

`feed` samples counters and keeps the last minutes, `tables` makes rows of them, `plain` text, `app` shows them with
Textual, `__main__` has the command line. `web` serves it to browsers, `pages` bounds and ends what they have open.
The plain modes need no extra.
"""
