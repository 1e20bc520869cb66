"""The plug-in for the viewer napari, which finds it by its manifest, ``napari.yaml``; needs the extra ``napari``.

``layers`` says how scans and volumes are shown, ``files`` reads and writes them, ``run`` is what happens in the thread,
``widget`` the window.  It uses what anybody can use of quietray, and nothing of quietray uses it.
"""
