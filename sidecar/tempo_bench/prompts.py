"""Text to send: our own templates over topics and invented facts, many thousands of distinct prompts.

Questions are a line long, some with a passage pasted in; tool tasks carry a passage of a few to two dozen sentences;
programs state a problem with its constraints. How long a small model's answers get follows from what is asked.
"""

from random import Random
from typing import Final

EARLIER: Final = "[earlier answers]"
"""Stands in a program's prompt where the earlier stage's answers go."""

_TOPICS: Final = (
    "photosynthesis", "compound interest", "the water cycle", "plate tectonics", "vaccines", "the printing press",
    "black holes", "fermentation", "the Silk Road", "neural networks", "supply and demand", "coral reefs", "inflation",
    "the French Revolution", "antibiotics", "wind turbines", "sleep", "public libraries", "chess openings", "bridges",
    "volcanoes", "the stock market", "bees", "jazz", "recycling", "earthquakes", "email", "the Roman aqueducts",
    "marathon training", "bread baking", "the moon", "electric cars", "desert plants", "the telephone", "tides",
    "encryption", "rainforests", "glaciers", "the heart", "urban gardens", "solar eclipses", "whales", "typography",
    "satellites", "the immune system", "trains", "tea", "the compass", "migrating birds", "databases",
)  # fmt: skip

_QUESTIONS: Final = (
    "What is the main idea behind {topic}? Answer in one sentence.",
    "Define {topic} in ten words.",
    "Suggest a title for a talk about {topic}.",
    "In which century did people first write about {topic}?",
    "Is {topic} older than {other}? Answer yes or no and say why in one sentence.",
    "Name one book or film about {topic}.",
    "Compare {topic} with {other} in a few sentences.",
    "Give me three facts about {topic}.",
    "Write a four-line poem about {topic}.",
    "Explain {topic} to a ten-year-old.",
    "List the main steps or parts of {topic}, one a line.",
    "Write a short story in which {topic} plays a part.",
    "I have to give a talk about {topic} tomorrow and know little about it. Which five points should I make?",
    "A friend says that {topic} and {other} have nothing in common. Find something that they do share.",
)
"""By how long a small model's answers are: a dozen tokens for the first few, hundreds for the last."""

_ABOUT_PASSAGE: Final = (
    "Here is something that I have to answer today:\n\n{passage}\n\nWhat should I reply? Keep it friendly.",
    "{passage}\n\nWhat happened here, in plain words?",
    "Read this and tell me what worries you most:\n\n{passage}",
)

_TOOL_TASKS: Final = (
    "Write a title of at most eight words for this report.\n\n{passage}",
    "Which place is named first in this report? Answer with its name only.\n\n{passage}",
    "Summarise the report in one sentence.\n\n{passage}",
    "Is this report routine, urgent, a complaint or praise? Answer with the word and one reason.\n\n{passage}",
    "Summarise the report in two sentences.\n\n{passage}",
    "List every person named below with what they did, one a line.\n\n{passage}",
    "Extract the places and days as a JSON list of objects with the keys place and day.\n\n{passage}",
    "Turn the text below into a bulleted list of action items.\n\n{passage}",
)

_SENTENCES: Final = (
    "{name} reported on {day} that the {thing} in {place} had stopped working after {number} hours.",
    "The team in {place} asked for {number} more boxes, and {name} promised to send them by {day}.",
    "According to {name}, the {thing} was replaced twice, but nobody wrote down why.",
    "On {day} the office in {place} counted {number} visitors, more than in any week before.",
    "{name} thinks that the {thing} is too loud and would rather have the old one back.",
    "A customer from {place} wrote a long letter to thank {name} for the quick repair.",
    "The bill for the {thing} came to {number} euros, which {name} has not paid yet.",
    "It rained in {place} from {day} on, so the delivery of the {thing} had to wait.",
    "{name} and {other} disagree on who should look after the {thing}.",
    "Nobody was hurt, but the {thing} must not be used until {name} has looked at it.",
    "The meeting on {day} ended early because {name} had to catch a train to {place}.",
    "In {place} the price has risen by {number} per cent, and {name} wants to know the reason.",
    "{name} keeps {number} spare parts in {place}, of which half fit the new {thing}.",
    "After the test on {day}, {other} wrote that the {thing} had passed with {number} points.",
    "The key to the store in {place} is with {name}, who is away until {day}.",
    "{other} proposed to sell the {thing} and to spend the money on a course for {name}.",
)

_PROBLEMS: Final = (
    "Plan a trip of {days} days to {place} for {people} people with {number} euros.",
    "Design a small exhibition about {topic} for a school with {number} pupils.",
    "A shop in {place} loses {number} euros a week on its {thing}. Find out what to change.",
    "Write a course of {days} lessons on {topic} for people who know only {other_topic}.",
    "Organise a party for {people} people in {place} on {day}, with {number} euros.",
    "Use the numbers {days}, {people}, 6 and 8 with plus, minus, times and divide to reach 24.",
)

_CONSTRAINTS: Final = (
    "Nobody may have to travel after dark.",
    "{name} does not eat meat and {other} cannot climb stairs.",
    "The {thing} must be used at least once.",
    "Everything has to be decided by {day}.",
    "A third of the money has to be left at the end.",
    "{name} wants to learn something about {topic}.",
    "If it rains, there has to be another plan.",
    "The solution has to fit on one page and be clear to a child.",
)

_FACTS: Final = {
    "name": ("Amina", "Boris", "Chen", "Dalia", "Emeka", "Freya", "Goran", "Hana", "Iker", "Jaya", "Kofi", "Lena"),
    "other": ("Mateo", "Nadia", "Omar", "Pilar", "Quentin", "Rosa", "Sven", "Tala", "Umar", "Vera", "Wei", "Yara"),
    "place": ("Lisbon", "Nairobi", "Oslo", "Kyoto", "Lima", "Tbilisi", "Quebec", "Perth", "Accra", "Graz", "Hanoi"),
    "thing": ("pump", "printer", "boiler", "lift", "oven", "server", "gate", "crane", "camera", "heater", "scanner"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "topic": _TOPICS,
    "other_topic": _TOPICS,
}


def question(random: Random) -> str:
    """A chat prompt: a question of a line or three; about one in five with a passage of up to 18 sentences."""
    if random.random() < 0.2:
        return random.choice(_ABOUT_PASSAGE).format(passage=_passage(random, 4, 18))
    topic, other = random.sample(_TOPICS, 2)
    return random.choice(_QUESTIONS).format(topic=topic, other=other)


def tool_task(random: Random) -> str:
    """A tool's prompt: a task on a passage of 3 to 22 sentences."""
    return random.choice(_TOOL_TASKS).format(passage=_passage(random, 3, 22))


def problem(random: Random) -> str:
    """What a program is about: a problem with two to five constraints."""
    parts = (random.choice(_PROBLEMS), *random.sample(_CONSTRAINTS, random.randint(2, 5)))
    return " ".join(_filled(random, part) for part in parts)


def program_prompt(statement: str, stage: int, stages: int, branch: int, width: int) -> str:
    """The prompt of one call of a tree of thoughts: propose, judge, work out, answer.

    Stages wider than one propose (the first) or work the chosen idea out; stages of one call judge, and the last
    answers. Every stage but the first has `EARLIER` where the answers before it go.
    """
    if stage == 0:
        return f"{statement}\n\nPropose idea {branch + 1} of {width}, unlike the others, in one sentence."
    if stage == stages - 1:
        return f"{statement}\n\nNotes:\n{EARLIER}\n\nWrite the final answer from these notes, in two sentences."
    if width == 1:
        return f"{statement}\n\nIdeas:\n{EARLIER}\n\nWhich idea is the best, and why? Answer in one sentence."
    return f"{statement}\n\nChosen idea:\n{EARLIER}\n\nWork out part {branch + 1} of {width} in one sentence."


def _passage(random: Random, fewest: int, most: int) -> str:
    count = round(random.triangular(fewest, most, fewest + 2))
    return " ".join(_filled(random, random.choice(_SENTENCES)) for _ in range(count))


def _filled(random: Random, template: str) -> str:
    facts = {key: random.choice(values) for key, values in _FACTS.items()}
    return template.format(
        **facts, number=random.randint(3, 900), days=random.randint(2, 9), people=random.randint(2, 12)
    )
