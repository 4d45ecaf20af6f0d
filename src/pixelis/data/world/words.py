"""What each split may use: words, numbers, hands, layouts and backgrounds, no two splits sharing any of them.

Words and numbers of two digits and more go to a split by a checksum of their text; the closed vocabulary (colours, shapes, yes and no,
one digit) belongs to all. Hands, layouts, backgrounds and plates are assigned by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from pixelis.core.errors import DataError
from pixelis.data.world.rng import Rng

SPLITS = ("train", "dev", "dev-cal", "test")
_BUCKETS = {"train": range(11), "dev": range(11, 13), "dev-cal": range(13, 15), "test": range(15, 20)}

WORDS = tuple(
    """
    acorn actor alarm album almond amber anchor angel apple april apron arctic arena arrow artist aspen atlas attic autumn badge
    bagel baker bamboo banjo basil basket beach beacon beaver berry bicycle birch biscuit bishop blanket bonsai border bottle branch
    bread bridge bronze bucket buffalo butter button cabin cactus camel camera canal candle canyon carbon carpet castle cattle cedar
    cellar cement cereal chain chapel cherry chess circus citrus clinic clover cobalt coffee comet copper coral cotton cradle crane
    crater cricket crown crystal curtain custard cycle daisy dancer delta desert dolphin domino donkey dragon drawer dream eagle
    easel echo eclipse elbow ember engine estate fabric falcon farmer feather fern ferry fiddle filter finch flame flask flint
    flower flute forest fossil fountain fox frost funnel galaxy garden garlic gecko ginger glacier globe goat gondola granite grape
    gravel guitar hammer hamster harbor harvest hazel helmet hermit heron hockey honey hotel hunter igloo indigo insect island ivory
    jacket jaguar jasmine jelly jewel jigsaw jungle kayak kernel kettle kitchen kitten koala ladder lagoon lantern laurel lava lemon
    lentil library lilac linen lion lizard lobster lotus lumber lunar magnet mango mantle maple marble market meadow melon mentor
    metal meteor mill mirror mitten monkey mosaic motor mountain muffin museum nectar needle nickel noodle north nutmeg oasis ocean
    olive onion opera orchid otter oxygen oyster paddle palace panda panther paper parade parrot pastry peach peanut pebble pelican
    pencil pepper phoenix piano pickle pigeon pilot pioneer pirate planet plaza pocket poet polar pollen pond poppy potato prairie
    prism puffin pumpkin puppet python quail quartz quiver rabbit radar radio raven record reed ribbon ridge river robin rocket
    runner saddle saffron sailor salmon sandal sapling satin scarf school scooter shadow shelter sherbet shovel signal silk sparrow
    spider spiral spring statue stone summer sunset tailor tandem temple tender thunder ticket tiger timber tomato topaz torch tower
    tractor trumpet tulip tunnel turnip turtle tuxedo umbrella valley vanilla velvet verse village vinegar violin vortex voyage
    waffle wagon walnut walrus water whale wheat whistle willow window winter wizard wolf wonder yacht yogurt zebra zenith zephyr
    bakery barber butcher florist grocer jeweler laundry pharmacy theater tavern bistro cinema gallery garage kiosk academy airport
    amulet antler aquarium archer arcade armor artichoke autograph avocado avenue balcony ballad balloon barley baron barrel bassoon
    bazaar bellows bobcat boulder bouquet breeze bugle cabbage cadet calendar canoe canvas capsule caravan cargo carnival cashew
    catalog cello champion chariot chestnut chimney chipmunk cinnamon clarinet cloak cobra coconut colony compass concert cookie
    cottage courier coyote cypress dagger dahlia daylight deacon debate diamond diner drummer dungeon dynamo eggplant elephant
    elevator emerald emperor envoy falafel fiesta fjord flamingo foxglove freight galleon gazelle geyser giraffe gladiolus goblet
    goldfish gorilla granary grotto gymnast halibut hangar hedgehog heritage hibiscus horizon hydrant iceberg iguana infantry
    isotope jackal jersey jubilee juniper kimono kingdom knight lacquer larch lavender leopard lettuce lighthouse limerick locket
    lullaby macaw mackerel magnolia mallard mandolin manor meridian merchant midnight minaret molten mustang mustard narwhal nomad
    novel nugget obelisk octopus opal oregano origami orbit osprey outpost pagoda pantry papaya parsley pasture patrol pavilion
    peacock pendulum peony pilgrim pistachio plateau platinum pomelo porcupine porridge pretzel pyramid quarry quilt radish raisin
    rampart raspberry reindeer rhubarb rodeo rosemary rowboat ruby sage samurai sapphire sardine sequoia sheriff sloop snowflake
    sonata spinach squirrel stallion starfish sultan swallow sycamore tambourine tango tapestry teapot telescope tempest termite
    thicket thimble thistle toucan treasure trellis trident truffle tundra turban tuba vault verdict viaduct viking villa volcano
    vulture wallaby walkway weasel wicker windmill wisteria woodland workshop wrangler yodel zeppelin zinnia zodiac
    """.split()  # noqa: SIM905
)

FONT_NAMES = {
    "train": ("plain", "light", "bold", "lean", "narrow", "wide", "serif", "block", "roman", "boldlean"),
    "dev": ("square", "brush"),
    "dev-cal": ("slab", "tall"),
    "test": ("poster", "italic", "signal", "airy"),
}
LAYOUTS = {
    "train": ("scatter", "rows", "columns", "halves", "middle"),
    "dev": ("falling", "border"),
    "dev-cal": ("rising", "corners"),
    "test": ("arc", "zigzag", "vee"),
}
BACKGROUNDS = {
    "train": (
        "gradient-down", "gradient-right", "grain", "stripes-level", "stripes-upright", "checks", "clouds", "plain",
        "photo:grass", "photo:gravel", "photo:coffee", "photo:brick",
    ),
    "dev": ("gradient-corner", "dots", "photo:chelsea"),
    "dev-cal": ("gradient-ridge", "grid", "photo:moon"),
    "test": ("gradient-centre", "stripes-slanted", "bricks", "weave", "photo:motorcycle_left", "photo:astronaut", "photo:ihc"),
}  # fmt: skip
PLATES = {"train": ("flat", "rounded", "framed"), "dev": ("pill",), "dev-cal": ("double",), "test": ("banner", "inset")}

TABLES = {"train": ("lines", "zebra", "plain"), "dev": ("header",), "dev-cal": ("rules",), "test": ("boxed", "night")}
CHARTS = {
    "train": ("upright", "upright-mono", "lying-ruled"),
    "dev": ("lying-mono",),
    "dev-cal": ("upright-framed",),
    "test": ("lying", "lying-framed"),
}
"""How bars stand, and how they are dressed. A split's manner is its own; that bars can lie at all, every learner may know."""


@dataclass(frozen=True)
class Style:
    """What one item was drawn with; all of it belongs to the item's split alone."""

    layout: str
    background: str
    plate: str
    table: str
    chart: str
    fonts: tuple[str, ...]


def check_split(split: str) -> None:
    """Raises: DataError: no such split."""
    if split not in SPLITS:
        raise DataError(f"no split {split!r} in PixelWorld: use one of {', '.join(SPLITS)}")


def split_of(text: str) -> str | None:
    """The split that alone may show this word or number; None for one digit, which all may."""
    if len(text) < 2:
        return None
    bucket = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4], "big") % 20
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


@cache
def words_of(split: str) -> tuple[str, ...]:
    return tuple(word for word in WORDS if split_of(word) == split)


@cache
def numbers_of(split: str, low: int, high: int) -> tuple[int, ...]:
    """The numbers from `low` to `high`, both included, that a split may show."""
    return tuple(n for n in range(low, high + 1) if split_of(str(n)) in (None, split))


def draw_words(rng: Rng, split: str, count: int, *, max_letters: int = 9) -> list[str]:
    """Different words in capitals."""
    return [w.upper() for w in rng.sample([w for w in words_of(split) if len(w) <= max_letters], count)]


def draw_style(rng: Rng, split: str) -> Style:
    font = rng.choice(FONT_NAMES[split])
    return Style(
        rng.choice(LAYOUTS[split]),
        rng.choice(BACKGROUNDS[split]),
        rng.choice(PLATES[split]),
        rng.choice(TABLES[split]),
        rng.choice(CHARTS[split]),
        (font,),
    )
