"""Pictures of measurements: pure functions from rows to figures.

A function makes a ``Picture``; ``style.save`` writes it as .png or .svg, ``style.to_svg`` gives its
text. Equal rows give equal files with one version of matplotlib, which comes with the extra
``plot`` and is imported when a picture is drawn. Everybody can tell the colours apart (Okabe and
Ito), and they never stand alone: lines differ in their markers too.
"""
