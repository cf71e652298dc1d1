# SPDX-License-Identifier: Apache-2.0
"""One module for each question: `cells(size)` lists what is trained for it, at the size of a few hours of two cores
("cpu") or at full size ("gpu")."""
