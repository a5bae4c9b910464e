"""Tell a public data set from own data in the same folders, by the names of its images.

Own data in such folders is common, since many programs expect them; its classes must not be taken for the benchmark's.
"""

import re
from collections.abc import Iterable
from pathlib import Path

CITIES = (
    "aachen|augsburg|bad-honnef|bamberg|bayreuth|berlin|bielefeld|bochum|bonn|bremen|cologne|darmstadt|dortmund|"
    "dresden|duisburg|dusseldorf|erfurt|erlangen|frankfurt|freiburg|hamburg|hanover|heidelberg|heilbronn|jena|"
    "karlsruhe|konigswinter|konstanz|krefeld|leverkusen|lindau|mainz|mannheim|monchengladbach|muhlheim-ruhr|munich|"
    "munster|nuremberg|oberhausen|saarbrucken|schweinfurt|strasbourg|stuttgart|troisdorf|tubingen|ulm|weimar|"
    "wuppertal|wurzburg|zurich"
)
"""The 50 cities of Cityscapes, with those of the coarse masks."""

NAMES = {
    "voc": r"20(0[5-9]|1[0-2])_\d{6}",
    "cityscapes": rf"({CITIES})_(\d\d_)?\d{{6}}_\d{{6}}_leftImg8bit",
    "ade20k": r"ADE_(train|val|test|frame)_\d{8}",
    "coco": r"\d{12}",
}
"""Pattern of the images' names without extension, by layout."""

TITLES = {"voc": "Pascal VOC 2012", "cityscapes": "Cityscapes", "ade20k": "ADE20K", "coco": "COCO 2017"}


def foreign_name(layout: str, images: Iterable[Path]) -> str | None:
    """The first name, in their order, that is not one of the benchmark's; None if all are."""
    pattern = re.compile(NAMES[layout])
    return min((path.name for path in images if not pattern.fullmatch(path.stem)), default=None)
