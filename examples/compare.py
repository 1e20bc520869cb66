"""Which method is best on this scan?  Ranked by views that none of them saw.

python examples/compare.py
"""

import tempfile

import quietray


def main() -> list[str]:
    """Return the methods, best first."""
    scan = quietray.FoamScan(views=96, rows=8, cols=40, photons=200, spheres=20, largest=0.3, seed=1).acquire()
    with tempfile.TemporaryDirectory() as folder:
        found = quietray.compare(
            scan,
            folder,
            training=quietray.Training(steps=20, precision="fp32"),  # or budget="20m" alone
            budget="2m",
        )
    print(found)
    for name, reason in found.left_out:
        print(f"left out: {name}: {reason}")
    return [standing.name for standing in found.standings]


if __name__ == "__main__":
    main()
