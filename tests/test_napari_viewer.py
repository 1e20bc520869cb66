"""The plug-in in a real napari on a display of its own: found by its manifest, used by hand, closed in a run."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scans import disc_scan

PLUGIN = Path(__file__).parent.parent / "src/quietray/napari/napari.yaml"

IN_THE_VIEWER = """
import sys, time
import napari, npe2
from qtpy.QtWidgets import QApplication
from quietray.napari.widget import DenoiseWidget

scan, picture = sys.argv[1:]
npe2.PluginManager.instance().register(npe2.PluginManifest.from_file(%r))
viewer = napari.Viewer()
viewer.window.resize(1200, 800)
app = QApplication.instance()


def wait(until, seconds=300):
    end = time.monotonic() + seconds
    while not until():
        app.processEvents()
        time.sleep(0.005)
        assert time.monotonic() < end, "it never came to it"


viewer.open(scan, plugin="quietray")
_, window = viewer.window.add_plugin_dock_widget("quietray", "Denoise")
assert isinstance(window, DenoiseWidget)
assert window.scan.currentData() is viewer.layers[-1]
wait(lambda: window.method.findText("gaussian") > 0)
window.method.setCurrentText("gaussian")
window.budget.setText("20s")
window.start_button.click()
assert window.worker is not None
wait(lambda: window.worker is None)
assert "result" in viewer.layers[-1].metadata, window.said.toPlainText()
assert viewer.layers[-1].metadata["result"].gain in viewer.text_overlay.text.replace("\\n", " ")
viewer.screenshot(picture, canvas_only=False)
viewer.open_sample("quietray", "foam")
assert window.scan.currentText() == "foam"
written = viewer.layers["%s denoised"].save(picture.replace(".png", ".h5"), plugin="quietray")
assert len(written) == 1
window.method.setCurrentText("noise2inverse")
window.budget.setText("10m")
window.start_button.click()
worker = window.worker
wait(lambda: window.stage.text().startswith("training"))
viewer.close()
wait(lambda: not worker.is_running, 60)
print("closed")
"""


@pytest.mark.skipif(importlib.util.find_spec("npe2") is None, reason="needs napari: pip install 'quietray[napari]'")
def test_the_manifest_is_valid_and_names_what_is_there() -> None:
    import npe2

    manifest = npe2.PluginManifest.from_file(PLUGIN)
    manifest.validate_imports()
    assert manifest.name == "quietray"


@pytest.mark.slow
def test_a_person_can_use_it_in_the_viewer(tmp_path: Path) -> None:
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        pytest.skip("needs napari: pip install 'quietray[napari]' 'napari[all]'")
    if (display := shutil.which("xvfb-run")) is None:
        pytest.skip("needs a display, found no xvfb-run on the PATH; install the system's xvfb package")
    scan = disc_scan()
    code = IN_THE_VIEWER % (str(PLUGIN), scan.stem)
    screen = ["-a", "-s", "-screen 0 1280x900x24"]
    picture = tmp_path / "viewer.png"
    told = subprocess.run(
        [display, *screen, sys.executable, "-c", code, str(scan), str(picture)], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr[-3000:]
    assert told.stdout.strip().endswith("closed")
    assert picture.stat().st_size > 10_000
    assert picture.with_suffix(".h5").exists()
