"""The plug-in for the viewer napari, found through its manifest ``napari.yaml``; needs the extra ``napari``.

``layers`` defines how scans and volumes are shown, ``files`` reads and writes them, ``run`` is the part that runs in a
thread, and ``widget`` is the window.  The plug-in only uses the public interface of quietray, and no other module uses
it.
"""
