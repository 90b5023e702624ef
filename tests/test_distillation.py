"""Distillation: numbers by hand, gradients against finite differences, a guide that pulls where the weights say and nowhere else."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import sparse

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, UnknownNameError
from covis.extraction import extract
from covis.images import Images, Scene
from covis.labels import Labels, self_pairs
from covis.models.place import PlaceModel
from covis.pairs import Pairs
from covis.settings import ModelSettings, TrainSettings
from covis.structure.distillation import distillation, feature, relational
from covis.structure.partition import Partition
from covis.training.fitting import fit

pytestmark = pytest.mark.usefixtures("one_thread")

DISTILLATIONS = {"feature": feature, "relational": relational}


def _rows(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def _units(count, dim=4, *, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _partition(*scenes):
    """Of (query, database) of each pair, a scene; the ranks do not matter here."""
    columns = [np.array(pairs).reshape(-1, 2).T for pairs in scenes]
    ones = [np.ones(len(pairs)) for pairs in scenes]
    query, database = [one[0] for one in columns], [one[1] for one in columns]
    ranks = [np.ones(len(pairs), dtype=np.int32) for pairs in scenes]
    return Partition(query, database, ones, ranks, student=ranks, scenes=tuple(f"scene{number}" for number in range(len(scenes))))


def _pairs(scene, query, database):
    database = np.array(database)
    return Pairs(np.array(scene), np.array(query), database, np.ones(database.shape), np.ones(len(query)))


class TestLosses:
    def test_feature_by_hand(self) -> None:
        # query: (1, 0) to (0, 1): 1 + 1 = 2; positive: (0.6, 0.8) to (0.8, 0.6): 0.04 + 0.04 = 0.08
        a, ta = _rows([1, 0]), _rows([0, 1])
        b, tb = _rows([0.6, 0.8]), _rows([0.8, 0.6])
        assert feature(a, b, ta, tb).tolist() == pytest.approx([2.08])
        # negatives (1, 0) to (0.6, 0.8): 0.16 + 0.64 = 0.8; (0, 1) to (0, 1): 0; their mean 0.4
        lists, teacher = _rows([[0.6, 0.8], [1, 0], [0, 1]]), _rows([[0.8, 0.6], [0.6, 0.8], [0, 1]])
        assert feature(a, lists, ta, teacher).tolist() == pytest.approx([2.08])
        assert feature(a, lists, ta, teacher, negatives=True).tolist() == pytest.approx([2.48])

    def test_relational_by_hand(self) -> None:
        # student: |(0, 0) - (3, 4)| = 5; teacher, of three dimensions: |(0, 0, 0) - (0, 0, 2)| = 2; (5 - 2)^2 = 9
        a, ta = _rows([0, 0]), _rows([0, 0, 0])
        assert relational(a, _rows([3, 4]), ta, _rows([0, 0, 2])).tolist() == pytest.approx([9], abs=1e-4)
        # negatives: 1 against 3: 4; 10 against 10: 0; their mean 2
        lists, teacher = _rows([[3, 4], [1, 0], [6, 8]]), _rows([[0, 0, 2], [3, 0, 0], [10, 0, 0]])
        assert relational(a, lists, ta, teacher).tolist() == pytest.approx([9], abs=1e-4)
        assert relational(a, lists, ta, teacher, negatives=True).tolist() == pytest.approx([11], abs=1e-4)

    @pytest.mark.parametrize("name", sorted(DISTILLATIONS))
    @pytest.mark.parametrize("negatives", [False, True])
    @pytest.mark.parametrize("lists", [False, True])
    def test_gradients_are_those_of_finite_differences(self, name: str, negatives: bool, lists: bool) -> None:
        random = torch.Generator().manual_seed(3)
        shapes = [(3, 4), (3, 3, 4) if lists else (3, 4)]
        a, b, ta, tb = (torch.randn(shape, dtype=torch.float64, generator=random) for shape in shapes * 2)
        a.requires_grad_(), b.requires_grad_()
        assert torch.autograd.gradcheck(lambda x, y: DISTILLATIONS[name](x, y, ta, tb, negatives=negatives), (a, b))

    @pytest.mark.parametrize("name", sorted(DISTILLATIONS))
    def test_nothing_flows_to_the_teacher(self, name: str) -> None:
        a, b, ta, tb = (torch.randn(2, 3, requires_grad=True) for _ in range(4))
        DISTILLATIONS[name](a, b, ta, tb).sum().backward()
        assert a.grad is not None
        assert b.grad is not None
        assert ta.grad is None
        assert tb.grad is None

    @pytest.mark.parametrize("name", sorted(DISTILLATIONS))
    def test_identical_descriptors_have_a_finite_gradient(self, name: str) -> None:
        same = _rows([0.6, 0.8])
        for teacher in (same, _rows([0.8, 0.6])):
            a, b = same.clone().requires_grad_(), same.clone().requires_grad_()
            found = DISTILLATIONS[name](a, b, same, teacher)
            found.sum().backward()
            assert torch.isfinite(torch.cat([found, *a.grad, *b.grad])).all()

    def test_a_student_that_is_its_teacher_loses_nothing(self) -> None:
        a, b = (torch.from_numpy(_units(5, seed=seed)) for seed in (0, 1))
        for name, loss in DISTILLATIONS.items():
            assert loss(a, b, a, b).tolist() == [0.0] * 5, name

    def test_a_turned_student_differs_in_features_and_not_in_relations(self) -> None:
        a, b = (torch.from_numpy(_units(5, seed=seed)).double() for seed in (0, 1))
        turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
        assert float(feature(a @ turn, b @ turn, a, b).min()) > 0.1
        assert float(relational(a @ turn, b @ turn, a, b).max()) < 1e-9

    def test_other_dimensions_are_refused_for_features_alone(self) -> None:
        a, b, ta, tb = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 6), torch.zeros(2, 6)
        with pytest.raises(InvalidInputError, match=r"the student has 4, the teacher 6\. .* relational"):
            feature(a, b, ta, tb)
        assert relational(a, b, ta, tb).shape == (2,)

    @pytest.mark.parametrize(
        "shapes",
        [
            [(2, 4), (3, 4), (2, 4), (3, 4)],
            [(2, 4), (2, 4), (3, 4), (3, 4)],
            [(2, 4), (2, 3, 4), (2, 4), (2, 4)],
            [(2, 4), (2, 3, 4), (2, 4), (2, 2, 4)],
            [(2, 4), (2, 5), (2, 4), (2, 5)],
            [(4,), (4,), (4,), (4,)],
            [(2, 4), (2, 0, 4), (2, 4), (2, 0, 4)],
        ],
    )
    def test_shapes_that_do_not_fit_are_refused(self, shapes: list[tuple[int, ...]]) -> None:
        for loss in DISTILLATIONS.values():
            with pytest.raises(InvalidInputError, match=r"Distillation takes \(P, D\)"):
                loss(*map(torch.zeros, shapes))


class TestGuide:
    """Two scenes: one of the same images on both sides, one of four queries and six database images."""

    partition = _partition([(0, 1), (1, 0), (2, 3)], [(0, 5), (3, 2), (3, 4)])
    weights = (np.array([2.0, 0.5, 0.0]), np.array([1.0, 3.0, 0.25]))
    targets = ((_units(5), _units(5)), (_units(4, seed=1), _units(6, seed=2)))

    def guide(self, **settings):
        return distillation(self.partition, self.weights, self.targets, **settings)

    def test_each_item_has_the_weight_of_its_pair_and_0_where_it_is_none(self) -> None:
        pairs = _pairs([1, 0, 0, 1, 0, 1, 0, 1], [3, 0, 1, 3, 2, 0, 4, 3], [4, 1, 0, 2, 3, 5, 4, 5])
        assert self.guide().weight(pairs).tolist() == [0.25, 2.0, 0.5, 3.0, 0.0, 1.0, 0.0, 0.0]
        lists = _pairs([1, 1], [3, 0], [[2, 4, 5], [2, 5, 1]])  # only the first column counts
        assert self.guide().weight(lists).tolist() == [3.0, 0.0]

    def test_a_dense_table_gives_the_same_weights(self) -> None:
        random = np.random.default_rng(1)
        chosen = random.choice(30 * 40, 300, replace=False)
        query, database = chosen // 40, chosen % 40
        table, weight = np.zeros((30, 40)), random.random(300)
        table[query, database] = weight
        guide = distillation(_partition(np.column_stack([query, database])), [weight], [(_units(30), _units(40))])
        asked = _pairs(np.zeros(1200, dtype=int), np.repeat(np.arange(30), 40), np.tile(np.arange(40), 30))
        np.testing.assert_array_equal(guide.weight(asked), table.ravel())

    def test_the_loss_is_strength_times_weight_times_distillation(self) -> None:
        pairs = _pairs([1, 0, 0, 1], [3, 0, 4, 0], [4, 1, 4, 5])
        a, b = (torch.from_numpy(_units(4, seed=seed)).double() for seed in (7, 8))
        for name in DISTILLATIONS:
            found = self.guide(loss=name, strength=0.3).loss(pairs, a, b)
            for row, (scene, query, database, weight) in enumerate([(1, 3, 4, 0.25), (0, 0, 1, 2.0), (0, 4, 4, 0.0), (1, 0, 5, 1.0)]):
                ta, tb = self.targets[scene][0][query], self.targets[scene][1][database]
                one = slice(row, row + 1)
                value = DISTILLATIONS[name](a[one], b[one], torch.from_numpy(ta)[None].double(), torch.from_numpy(tb)[None].double())
                assert float(found[row]) == pytest.approx(0.3 * weight * float(value), rel=1e-12), (name, row)

    def test_negatives_are_distilled_where_asked_for(self) -> None:
        pairs = _pairs([1], [3], [[2, 0, 1]])
        a, b = torch.from_numpy(_units(1, seed=7)), torch.from_numpy(_units(3, seed=8))[None]
        queries, database = self.targets[1]
        own = ((a.numpy()[0] - queries[3]) ** 2).sum() + ((b.numpy()[0, 0] - database[2]) ** 2).sum()
        negatives = np.mean([((b.numpy()[0, column] - database[row]) ** 2).sum() for column, row in ((1, 0), (2, 1))])
        assert float(self.guide().loss(pairs, a, b)) == pytest.approx(3 * own, rel=1e-5)
        assert float(self.guide(negatives=True).loss(pairs, a, b)) == pytest.approx(3 * (own + negatives), rel=1e-5)

    def test_an_item_of_weight_0_has_no_gradient_even_where_it_is_no_number(self) -> None:
        pairs = _pairs([0, 0, 0], [2, 0, 4], [3, 1, 4])  # weight 0 in the partition; 2; not in the partition
        a, b = (torch.full((3, 4), torch.nan) for _ in range(2))
        a[1], b[1] = torch.from_numpy(_units(2, seed=5))
        a.requires_grad_(), b.requires_grad_()
        found = self.guide().loss(pairs, a, b)
        assert found[[0, 2]].tolist() == [0.0, 0.0]
        found.sum().backward()
        for grad in (a.grad, b.grad):
            assert grad is not None
            assert grad[[0, 2]].tolist() == [[0.0] * 4] * 2
            assert float(grad[1].norm()) > 0

    def test_a_batch_without_a_worthy_pair_adds_nothing_and_asks_for_no_target(self, monkeypatch) -> None:
        guide = self.guide()
        monkeypatch.setattr(type(guide), "_targets", None)
        a = torch.ones(2, 4, requires_grad=True)
        assert guide.loss(_pairs([0, 1], [4, 0], [4, 0]), a, a).tolist() == [0.0, 0.0]
        off = distillation(self.partition, self.weights, self.targets, strength=0.0)
        assert off.loss(_pairs([0], [0], [1]), a[:1], a[:1]).tolist() == [0.0]

    def test_it_takes_the_type_of_the_student(self) -> None:
        pairs = _pairs([0], [0], [1])
        for kind in (torch.float32, torch.float64):
            assert self.guide().loss(pairs, torch.zeros(1, 4, dtype=kind), torch.zeros(1, 4, dtype=kind)).dtype == kind

    def test_the_digest_tells_all_that_decides_a_value(self) -> None:
        moved = _partition([(0, 1), (1, 0), (2, 3)], [(0, 5), (3, 2), (3, 3)])
        heavier = [self.weights[0] * 2, self.weights[1]]
        other = [self.targets[0], (self.targets[1][1][:4], self.targets[1][1])]
        digests = [
            self.guide().digest,
            self.guide(loss="relational").digest,
            self.guide(strength=0.5).digest,
            self.guide(negatives=True).digest,
            distillation(moved, self.weights, self.targets).digest,
            distillation(self.partition, heavier, self.targets).digest,
            distillation(self.partition, self.weights, other).digest,
        ]
        assert len(set(digests)) == len(digests)
        assert self.guide().digest == digests[0]

    def test_the_order_of_the_pairs_does_not_matter(self) -> None:
        turned = _partition([(2, 3), (1, 0), (0, 1)], [(3, 4), (3, 2), (0, 5)])
        assert distillation(turned, [one[::-1] for one in self.weights], self.targets).digest == self.guide().digest

    def test_it_goes_to_another_process_and_comes_back_the_same(self, tmp_path) -> None:
        names = [tuple(f"{row}.png" for row in range(len(side))) for sides in self.targets for side in sides]
        saved = [
            Descriptors.load(Descriptors(side, one, "teacher").save(tmp_path / str(number)))
            for number, (side, one) in enumerate(zip([side for sides in self.targets for side in sides], names, strict=True))
        ]
        pairs, a = _pairs([1, 0], [3, 0], [4, 1]), torch.from_numpy(_units(2, seed=9))
        expected = self.guide().loss(pairs, a, a.flip(0)).tolist()
        for targets in (self.targets, [(saved[0], saved[1]), (saved[2], saved[3])]):
            guide = distillation(self.partition, self.weights, targets)
            again = pickle.loads(pickle.dumps(guide))
            assert again.digest == guide.digest == copy.deepcopy(guide).digest
            for one in (guide, again, copy.deepcopy(guide)):
                assert one.loss(pairs, a, a.flip(0)).tolist() == expected

    def test_attach_looks_at_the_network_that_learns(self) -> None:
        model = PlaceModel(ModelSettings(backbone="resnet10t", projection=4, height=32, width=32))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        self.guide().attach(model)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        wide = PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=32))
        with pytest.raises(InvalidInputError, match=r"the student has 512, the teacher 4"):
            self.guide().attach(wide)
        self.guide(loss="relational").attach(wide)
        long = PlaceModel(ModelSettings(backbone="resnet10t", projection=4, height=32, width=32, normalize=False))
        with pytest.raises(InvalidInputError, match=r"must give unit vectors; its model has normalize = false"):
            self.guide().attach(long)

    def test_the_pairs_of_other_scenes_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"of the 2 scenes that are distilled; one is of scene 2"):
            self.guide().weight(_pairs([2], [0], [0]))

    def test_parts_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(UnknownNameError, match=r"distillation called 'features'. Did you mean 'feature'"):
            self.guide(loss="features")
        for strength in (-0.1, float("nan"), float("inf")):
            with pytest.raises(InvalidInputError, match=r"strength of distillation must be a finite number"):
                self.guide(strength=strength)
        with pytest.raises(InvalidInputError, match=r"2 scenes, 1 weights and 2 targets"):
            distillation(self.partition, self.weights[:1], self.targets)
        with pytest.raises(InvalidInputError, match=r"scene 'scene1' has 3 pairs and weights \(2,\)"):
            distillation(self.partition, [self.weights[0], np.ones(2)], self.targets)
        for bad in (-1.0, float("nan"), float("inf")):
            with pytest.raises(InvalidInputError, match=r"that of pair 1 of scene 'scene0'"):
                distillation(self.partition, [np.array([1.0, bad, 1.0]), self.weights[1]], self.targets)
        with pytest.raises(InvalidInputError, match=r"rows 1 to 5|rows 2 to 5"):
            distillation(self.partition, self.weights, [self.targets[0], (_units(4), _units(5))])
        with pytest.raises(InvalidInputError, match=r"one dimension; got \[3, 4\]"):
            distillation(self.partition, self.weights, [self.targets[0], (_units(4, 3), _units(6, 3))])

    def test_it_says_what_it_is(self) -> None:
        assert repr(self.guide(strength=0.5)) == "Distillation(feature, 5 pairs in 2 scenes, 4-D, strength 0.5)"


def test_a_student_pulled_by_the_guide_alone_becomes_its_teacher() -> None:
    """Free descriptors: those of worthy pairs arrive at their targets, the others stay where they began, to the bit."""
    partition = _partition([(0, 1), (1, 2), (2, 0), (4, 5)])
    targets = _units(6)
    guide = distillation(partition, [np.array([1.0, 0.5, 2.0, 0.0])], [(targets, targets)])
    free = torch.nn.Parameter(torch.from_numpy(_units(6, seed=9)))
    before = torch.nn.functional.normalize(free.detach(), dim=1)
    pairs = _pairs([0] * 4, [0, 1, 2, 4], [1, 2, 0, 5])
    optimizer = torch.optim.SGD([free], lr=0.2)
    for _ in range(200):
        units = torch.nn.functional.normalize(free, dim=1)
        optimizer.zero_grad()
        guide.loss(pairs, units[pairs.query], units[pairs.database]).mean().backward()
        optimizer.step()
    found = torch.nn.functional.normalize(free.detach(), dim=1)
    np.testing.assert_allclose(found[:3].numpy(), targets[:3], atol=1e-4)
    assert torch.equal(found[3:], before[3:])


def test_a_relational_student_takes_the_distances_of_a_teacher_of_other_dimensions() -> None:
    partition = _partition([(q, p) for q in range(4) for p in range(4) if q != p])
    targets = _units(4, 7)
    guide = distillation(partition, [np.ones(12)], [(targets, targets)], loss="relational")
    free = torch.nn.Parameter(torch.from_numpy(_units(4, 3, seed=9)))
    pairs = _pairs([0] * 12, *map(list, zip(*[(q, p) for q in range(4) for p in range(4) if q != p], strict=True)))
    optimizer = torch.optim.SGD([free], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        guide.loss(pairs, free[pairs.query], free[pairs.database]).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(torch.cdist(free, free).detach(), np.linalg.norm(targets[:, None] - targets, axis=2), atol=2e-3)


@pytest.mark.slow
def test_training_is_guided(tmp_path) -> None:
    """The same training with and without a guide: the guided student ends nearer to its teacher, on the pairs that count."""
    random = np.random.default_rng(0)
    names = tuple(f"{row}.png" for row in range(12))
    for name in names:
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    images = Images(tmp_path, names)
    similarity = np.kron(np.eye(6), np.ones((2, 2)))  # the images of a pair see the same place
    labels = Labels(sparse.csr_array(similarity), names, names, rule="by hand", excluded=self_pairs(images, images))
    small = ModelSettings(backbone="resnet10t", backbone_options={"channels": [8, 8, 8, 16], "stem_width": 8}, height=32, width=32)
    model, settings = PlaceModel(small), TrainSettings(steps=30, batch=8, sampler="binary", accelerator="cpu")
    targets = random.random((12, 16)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    partition = _partition([(row, row ^ 1) for row in range(12)])
    guide = distillation(partition, [np.ones(12)], [(targets, targets)], strength=3.0)
    apart = {}
    for name, one in (("plain", None), ("guided", guide)):
        trained = fit(model, [Scene("a", "train", images, images)], [labels], settings, out=tmp_path / name, guide=one, progress=False)
        apart[name] = np.square(extract(trained, images).vectors - targets).sum(axis=1).mean()
    assert apart["guided"] < 0.8 * apart["plain"]
    assert json.loads((tmp_path / "guided" / "settings.json").read_text())["guide"] == guide.digest
