"""Reading an answer gives back the qualities it was made of."""

from rlhf.toy.gold import ToyGold, read_qualities
from rlhf.toy.texts import ToyTask
from rlhf.toy.world import ToyWorld

TASK = ToyTask("What is 1 + 1?", "It is 2.", "It is 3.")


def test_reading_inverts_writing():
    world = ToyWorld(size=400)
    gold = ToyGold(world)
    for index in range(400):
        record, (task, _, _) = world.record(index), world.task(index)
        for completion in record.completions:
            assert read_qualities(task, completion.text) == completion.meta["qualities"], completion.text
        found = gold([record.prompt] * len(record.completions), [c.text for c in record.completions])
        assert [round(g, 6) for g in found] == world.gold(record)


def test_other_texts_are_read_too():
    read = read_qualities(TASK, "Hm what. It is 2. I know. I know.")
    assert read == {"correct": 1, "polite": 0, "hedged": 0, "verbose": 3, "repetitive": 1, "off_topic": 0}
    assert read_qualities(TASK, "")["correct"] == 0
    assert read_qualities(TASK, "It is 3. No, it is 2.")["correct"] == 0
