"""Strangers' files are read in a child process: what they do to a library is an error of the file, not our end.

Libraries in compiled languages can be led by a damaged file to crash, to loop where no signal reaches, or to ask for
all memory. So they work in a process of their own, which may take a stated memory and processor time for each request
(``limits``); it starts once, beside the imports of its parent, and serves every file that is read (decision 44).
"""

from .client import while_waiting
from .frames import guarded_frames
from .reading import as_data_error, in_child, settling, warm_up

__all__ = ["as_data_error", "guarded_frames", "in_child", "settling", "warm_up", "while_waiting"]
