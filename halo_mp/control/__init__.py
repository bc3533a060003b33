# SPDX-License-Identifier: Apache-2.0
"""What supervisor, driver, workers and clients say to each other, and the channel they say it over."""
