"""The words of the starter models: class synonyms, unknown words for negatives, and a WordPiece vocabulary."""

from __future__ import annotations

import string
from typing import Final

import numpy as np

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "scratch": (
        "scratch",
        "scratches",
        "scrape",
        "scrapes",
        "scuff",
        "scuff mark",
        "score mark",
        "scoring",
        "scratch mark",
    ),
    "dent": ("dent", "dents", "ding", "dings", "dimple", "dimples", "depression", "dented area", "bump mark"),
    "crack": ("crack", "cracks", "fracture", "fractures", "fissure", "split", "hairline crack", "crackle"),
    "rust": ("rust", "corrosion", "oxidation", "rust spot", "rust spots", "rust patch", "corroded area", "rusty patch"),
    "hole": ("hole", "holes", "pit", "pits", "pore", "perforation", "puncture", "cavity", "opening"),
    "stain": ("stain", "stains", "smudge", "discoloration", "oil spot", "oil stain", "dirt", "blot", "dirty spot"),
    "chip": ("chip", "chips", "chipped area", "chipping", "flake", "flaking", "nick", "paint chip", "spall"),
    "blister": ("blister", "blisters", "bubble", "bubbles", "paint bubble", "blistering", "swelling", "air bubble"),
    "missing screw": (
        "missing screw",
        "missing screws",
        "missing bolt",
        "missing fastener",
        "empty screw hole",
        "absent screw",
        "screw missing",
        "missing rivet",
    ),
    "burr": ("burr", "burrs", "metal burr", "ragged edge", "jagged edge", "raised edge", "sharp burr", "burring"),
}
"""Words per class; the first is the class name."""

ADJECTIVES: Final = ("small", "large", "deep", "visible", "long", "surface", "single", "fine", "big", "minor")
PLACES: Final = ("on metal", "on the surface", "on paint", "on a part", "in the surface", "on the part", "on wood")
COLOURS: Final = (
    "red",
    "green",
    "blue",
    "yellow",
    "orange",
    "black",
    "white",
    "grey",
    "brown",
    "dark",
    "bright",
    "light",
)
MORE_PLACES: Final = ("on steel", "on concrete", "on fabric", "on plastic", "on ceramic", "on stone", "on aluminium")
"""Prompts may hold colours and places; their words stand in ``_OTHER``, as ids never move."""

_UNKNOWN: Final = (
    "cat dog car person bird horse cow bus truck train boat bottle cup bowl chair table sofa plant tree flower "
    "house door window road sign lamp phone screen book clock shoe hat bag key coin ball fish apple banana egg "
    "bolt nut washer gear spring wire cable pipe valve motor bearing bracket gasket hinge handle wheel tyre hose "
    "circuit resistor capacitor chip connector plug socket switch button knob fan pump tank cup hand face eye "
    "cloud sun moon star mountain river bridge tower building bench fence grass sand snow water fire smoke "
    "pen paper box basket spoon fork knife plate glass candle towel pillow blanket shirt button zipper ring "
    "airplane bicycle motorcycle helmet glove hammer wrench pliers drill saw ladder rope chain hook magnet"
)
UNKNOWN: Final = tuple(_UNKNOWN.split())
"""Words of the vocabulary that are no class of the first edition."""


def unknown_words(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Words that name nothing in the pictures: a prompt that holds them has no target for them."""
    meant = {word for name in classes for phrase in SYNONYMS[name] for word in phrase.split()}
    return tuple(word for word in UNKNOWN if word not in meant)


NAMED_DISTRACTORS: Final[dict[str, tuple[str, ...]]] = {
    "text": ("text", "letters", "serial number"),
    "screw": ("screw", "rivet", "fastener"),
    "sticker": ("label", "sticker", "barcode"),
}
"""Words for distractors; the classifier learns them, the detector treats them as words without target."""

_STRANGE: Final = (
    "accordion acorn almond anchor ankle antenna apron armchair arrow avocado backpack badge bagel balcony balloon "
    "bamboo banjo barrel beard beaver beetle bikini biscuit blossom bonnet bouquet bracelet broccoli broom bucket "
    "buffalo butterfly cabinet cactus camel camera candy canoe carpet carrot castle cauliflower cello cherry chicken "
    "chimney cinema coconut coffee compass computer cookie coral cowboy crab crayon cricket crown cucumber curtain "
    "cushion daisy desert diamond dolphin donkey dragon dress drum duck eagle elbow elephant engine envelope feather "
    "ferry fiddle finger flag flamingo flute forest fox frog garage garlic gazelle ginger giraffe goat gorilla grape "
    "guitar hamster harbour harp hedge helicopter hippo honey hotel igloo insect island jacket jaguar jelly jungle "
    "kangaroo kettle kitchen kite koala lemon leopard lettuce library lighthouse lion lizard lobster mango meadow "
    "melon microscope mirror monkey moose mosque mushroom napkin necklace ocean octopus olive onion orchid ostrich "
    "oven owl oyster palace panda parachute parrot peacock peanut pencil penguin pepper piano pigeon pineapple pizza "
    "planet pocket potato pumpkin puppet rabbit radio raven restaurant robot rocket salad sandal scarf school "
    "scorpion sheep shark sock soldier spider squirrel stadium statue strawberry suitcase swan teapot teacher "
    "telescope tent tiger toaster tomato tractor trumpet tulip turtle unicorn vase village vulture walnut waterfall "
    "weasel whale wheat window wizard wolf yacht yoghurt"
)
STRANGE: Final = tuple(_STRANGE.split())
"""More words that name nothing in the pictures; the vocabulary spells most of them in pieces."""

_OTHER: Final = (
    "a an and the of on in with without no not any all some one two red green blue yellow orange black white grey gray "
    "brown dark bright light thin thick wide narrow rough smooth shiny dull metal steel iron copper brass aluminium "
    "aluminum painted paint coating cast casting wood wooden concrete fabric cloth plastic rubber ceramic tile stone "
    "surface area part object defect defects damage damaged flaw mark marks line lines spot spots patch edge seam weld "
    "burr chip chips peel blister bubble wrinkle tear cut missing broken bent worn clean nothing background shadow "
    "reflection dust oil grease ink drip weathered inspection photo picture image close up near left right top bottom "
    "scratched cracked rusty rusted corroded stained dented pitted punctured split gouge groove abrasion delamination"
)

_FIRST_GROUPS: Final = 6

SPECIAL: Final[dict[str, int]] = {
    "[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029,
}  # fmt: skip
"""Ids that transformers fixes in its Grounding DINO code."""


def wordpieces() -> list[str]:
    """List the vocabulary in id order: special ids, characters, pairs of letters, words, ``[unusedN]`` gaps."""
    pieces: list[str] = []
    characters = string.ascii_lowercase + string.digits
    pieces += list(characters) + [f"##{c}" for c in characters]
    pieces += [c for c in string.punctuation if c not in ".?"]
    pieces += [f"##{a}{b}" for a in string.ascii_lowercase for b in string.ascii_lowercase]
    # The first six classes come first and newer ones last: ids never move, so that weights can be trained on.
    groups = list(SYNONYMS.values())
    words = [word for group in groups[:_FIRST_GROUPS] for phrase in group for word in phrase.split()]
    words += [word for phrase in (*ADJECTIVES, *PLACES) for word in phrase.split()]
    words += [word for group in NAMED_DISTRACTORS.values() for phrase in group for word in phrase.split()]
    words += [*UNKNOWN, *_OTHER.split()]
    words += [word for group in groups[_FIRST_GROUPS:] for phrase in group for word in phrase.split()]
    pieces += [word for word in dict.fromkeys(words) if len(word) > 1]
    fixed = {index: piece for piece, index in SPECIAL.items()}
    vocabulary: list[str] = []
    queue = iter(pieces)
    remaining = len(pieces)
    while remaining or len(vocabulary) <= max(fixed):
        index = len(vocabulary)
        if index in fixed:
            vocabulary.append(fixed[index])
        elif index < SPECIAL["[UNK]"] or not remaining:
            vocabulary.append(f"[unused{index}]")
        else:
            vocabulary.append(next(queue))
            remaining -= 1
    return vocabulary


def invented_word(rng: np.random.Generator) -> str:
    """Invent a pronounceable word that means nothing, so that unseen words learn to score low."""
    starts = [*"bcdfghjklmnprstvwxyz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "qu", "sh", "sp", "st", "th", "tr"]
    vowels = [*"aeiou", "ai", "ea", "ee", "io", "oa", "ou"]
    word = str(rng.choice(["", "", "", *vowels[:5]]))
    for _ in range(int(rng.integers(1, 4))):
        word += str(rng.choice(starts)) + str(rng.choice(vowels))
    return word + str(rng.choice(["", "n", "r", "s", "t", "ck", "ll", "nd", "x", "m", "y", "lla", "no"]))


def _nothing(rng: np.random.Generator, classes: tuple[str, ...]) -> str:
    """Draw a word without target: one of the vocabulary, a strange or invented one, or a distractor's name."""
    draw = rng.random()
    if draw < 0.35:
        return str(rng.choice(unknown_words(classes)))
    if draw < 0.6:
        return str(rng.choice(STRANGE))
    if draw < 0.85:
        return invented_word(rng)
    return str(rng.choice([word for group in NAMED_DISTRACTORS.values() for word in group]))


def phrase_for(rng: np.random.Generator, label: str) -> str:
    """Words for a class: its name half of the time, else a synonym, sometimes with an adjective or a place."""
    phrase = label if rng.random() < 0.5 else str(rng.choice(SYNONYMS[label]))
    draw = rng.random()
    if draw < 0.07:
        return f"{rng.choice(ADJECTIVES)} {phrase}"
    if draw < 0.11:
        return f"{rng.choice(COLOURS)} {phrase}"
    if draw < 0.2:
        return f"{phrase} {rng.choice((*PLACES, *MORE_PLACES))}"
    return phrase


def prompt_for(rng: np.random.Generator, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Phrases in random order, each with its class index or -1 for a word without target.

    Two prompts in five are the plain class names in order of a shuffle, as users write them; one in twelve holds
    words without target alone.
    """
    if rng.random() < 0.08:
        return [(word, -1) for word in dict.fromkeys(_nothing(rng, classes) for _ in range(int(rng.integers(1, 5))))]
    order = [int(i) for i in rng.permutation(len(classes))]
    if rng.random() < 0.4:
        names = list(range(len(classes))) if rng.random() < 0.5 else order
        return [(classes[i], i) for i in names]
    shares = np.arange(1, len(classes) + 1) + 1.0
    kept = order[: int(rng.choice(len(classes), p=shares / shares.sum())) + 1]
    phrases = []
    for index in kept:
        phrases.append((phrase_for(rng, classes[index]), index))
        if rng.random() < 0.12:
            phrases.append((str(rng.choice(SYNONYMS[classes[index]])), index))
    others = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.25, 0.2, 0.1]))
    phrases += [(_nothing(rng, classes), -1) for _ in range(others)]
    seen: dict[str, int] = {}
    for index in rng.permutation(len(phrases)):
        seen.setdefault(*phrases[int(index)])
    return list(seen.items())
