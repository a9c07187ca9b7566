"""Speech emotion recognition on the device, and the definitions that training shares with it."""

import os

# NumPy's matrices are small here: a second thread of OpenBLAS only waits, at full speed, and
# doubles what an estimate costs (measured: python -m edge profile). Read when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
