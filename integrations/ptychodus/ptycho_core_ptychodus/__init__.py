"""ptycho-core behind ptychodus: all that the modules named ``ptycho`` and ``ptycho_torch`` do is done here.

Those modules lie in ``names``, which a line in site-packages puts at the end of ``sys.path``. Nothing here is for
anyone but the client; importing it imports no framework.
"""
