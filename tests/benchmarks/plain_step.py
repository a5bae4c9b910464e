"""A plain implementation of UniMatch V2's published training step: fp32, two student forwards, an EMA loop in Python.

Written from the paper (arXiv 2410.10777, section 4) and known properties of its code. The network is the trainer's, so
that only the step differs.
"""

# B images, K classes, C channels, H W pixels

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor
from torch.optim import AdamW

from tests.benchmarks.plain_data import IGNORE, PlainLabelled, PlainUnlabelled
from trainer.models.segmenter import Segmenter
from trainer.teacher import make_teacher

THRESHOLD = 0.95
STEPS = 10**6
LR, LR_FACTOR = 5e-6, 40.0


class PlainStep:
    """Student, teacher, optimizer and the published training step."""

    def __init__(self, student: Segmenter, device: torch.device) -> None:
        self.device, self.student = device, student.to(device).train()
        self.teacher = make_teacher(self.student)
        head = [parameter for parameter in student.head.parameters() if parameter.requires_grad]
        encoder = [parameter for parameter in student.encoder.parameters() if parameter.requires_grad]
        groups = [{"params": encoder, "lr": LR}, {"params": head, "lr": LR * LR_FACTOR}]
        self.optimizer = AdamW(groups, betas=(0.9, 0.999), weight_decay=0.01)
        self.done = 0
        self.sums = dict.fromkeys(("loss", "labelled", "unlabelled", "confident"), 0.0)

    def step(self, labelled: PlainLabelled, unlabelled: PlainUnlabelled) -> None:
        """One iteration."""
        image, mask = (tensor.to(self.device) for tensor in labelled)
        weak, strong1, strong2, padding, box1, box2 = (tensor.to(self.device) for tensor in unlabelled)
        confidence, label = self.pseudo_labels(weak)
        targets = []
        for view, box in ((strong1, box1), (strong2, box2)):
            inside = box == 1
            view[inside[:, None].expand(view.shape)] = view.flip(0)[inside[:, None].expand(view.shape)]
            mixed = [tensor.clone() for tensor in (label, confidence, padding)]
            for tensor, source in zip(mixed, (label, confidence, padding), strict=True):
                tensor[inside] = source.flip(0)[inside]
            targets.append(mixed)

        logits = self.forward(image, None)
        views = self.forward(torch.cat([strong1, strong2]), self.dropout(len(weak))).chunk(2)
        loss_labelled = F.cross_entropy(logits, mask, ignore_index=IGNORE)
        losses = [self.consistency(view, *target) for view, target in zip(views, targets, strict=True)]
        loss_unlabelled = (losses[0] + losses[1]) / 2
        loss = (loss_labelled + loss_unlabelled) / 2

        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        confident = ((confidence >= THRESHOLD) & (padding != IGNORE)).sum().item() / (padding != IGNORE).sum()
        self.sums["loss"] += loss.item()
        self.sums["labelled"] += loss_labelled.item()
        self.sums["unlabelled"] += loss_unlabelled.item()
        self.sums["confident"] += confident.item()
        self.average()

    @torch.no_grad()
    def pseudo_labels(self, weak_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's confidence and class of each pixel of the weak view, [B,H,W]."""
        self.teacher.eval()
        logits_BKHW = self.forward(weak_BCHW, None, self.teacher)
        confidence_BHW = logits_BKHW.softmax(dim=1).max(dim=1)[0]
        return confidence_BHW, logits_BKHW.argmax(dim=1)

    def forward(self, image_BCHW: Tensor, mask_BC: Tensor | None, network: Segmenter | None = None) -> Tensor:
        """Return logits at the size of the images, which are already normalised."""
        network = network or self.student
        maps = network.encoder(image_BCHW)
        if mask_BC is not None:
            maps = [map_BCHW * mask_BC[:, :, None, None] for map_BCHW in maps]
        return network.upsample(network.head(maps, None), image_BCHW.shape[-2:])

    def dropout(self, images: int) -> Tensor:
        """Complementary dropout masks of two views, float [2*images,C]; half of the images keep all channels."""
        channels = self.student.encoder.channels[0]
        first = torch.bernoulli(torch.full((images, channels), 0.5)).to(self.device) * 2.0
        second = 2.0 - first
        whole = torch.randperm(images)[: images // 2]
        first[whole, :] = 1.0
        second[whole, :] = 1.0
        return torch.cat([first, second])

    def consistency(self, logits: Tensor, label: Tensor, confidence: Tensor, padding: Tensor) -> Tensor:
        """Cross-entropy of confident pixels, divided by the number of pixels outside the padding."""
        loss = F.cross_entropy(logits, label, reduction="none")
        loss = loss * ((confidence >= THRESHOLD) & (padding != IGNORE))
        return loss.sum() / (padding != IGNORE).sum().item()

    @torch.no_grad()
    def average(self) -> None:
        """Update the learning rate and the teacher (EMA), parameter by parameter and buffer by buffer."""
        for group, factor in zip(self.optimizer.param_groups, (1.0, LR_FACTOR), strict=True):
            group["lr"] = LR * factor * (1 - self.done / STEPS) ** 0.9
        decay = min(1 - 1 / (self.done + 1), 0.996)
        for new, old in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
            old.copy_(old * decay + new.detach() * (1 - decay))
        for buffer, mean in zip(self.student.buffers(), self.teacher.buffers(), strict=True):
            mean.copy_(mean * decay + buffer.detach() * (1 - decay))
        self.done += 1
