"""Networks in 8-bit integers: calibration, which layers bear it, and graphs in which the others stay in float."""
