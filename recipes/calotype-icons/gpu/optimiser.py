"""Muon for matrices and Adam for the rest, on float32 masters of bfloat16 weights; every number stays on the device, so that a
whole training step can be one CUDA graph.

Muon: kellerjordan.github.io/posts/muon, 2024. Matrices of one shape are orthogonalised together.
"""
import collections

import torch


def orthogonal(x):
    """Five Newton–Schulz steps on [N, rows, columns]."""
    wide = x.shape[-2] > x.shape[-1]
    x = x.mT if wide else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if wide else x


class Schedule:
    """A factor for the rate: up over `warmup` steps, then 1, then down to 0 over the last `decay` of `total` steps."""

    def __init__(self, device, warmup, decay):
        self.step, self.total = torch.zeros((), device=device), torch.full((), 1e9, device=device)
        self.warmup, self.decay = warmup, decay

    def factor(self):
        up = (self.step + 1) / self.warmup
        down = (self.total - self.step) / (self.decay * self.total)
        return torch.minimum(up, down).clamp(0, 1)


class Optimiser:
    def __init__(self, parameters, is_matrix, schedule, rate, muon_rate, beta2=0.98, average=0.998):
        """parameters: {name: weight}, of any type, changed by step()."""
        self.schedule, self.rate, self.muon_rate, self.beta2, self.decay = schedule, rate, muon_rate, beta2, average
        shapes = collections.defaultdict(list)
        for name, p in parameters.items():
            if is_matrix(name, p):
                shapes[tuple(p.flatten(1).shape)].append((name, p))
        self.matrices = []
        self.weights, self.masters, names = [], [], []
        for group in shapes.values():
            master = torch.stack([p.detach().float().flatten(1) for _, p in group])
            self.matrices.append(([p for _, p in group], master, torch.zeros_like(master)))
            for (name, p), part in zip(group, master):
                self.weights.append(p)
                self.masters.append(part.view(p.shape))
                names.append(name)
        rest = [(n, p) for n, p in parameters.items() if not is_matrix(n, p)]
        self.others = [p for _, p in rest]
        self.other_masters = [p.detach().float().clone() for p in self.others]
        self.weights, self.masters, self.names = self.weights + self.others, self.masters + self.other_masters, names + [n for n, _ in rest]
        self.first = [torch.zeros_like(m) for m in self.other_masters]
        self.second = [torch.zeros_like(m) for m in self.other_masters]
        self.averages = [m.clone() for m in self.masters]

    @torch.no_grad()
    def step(self):
        factor, n = self.schedule.factor(), self.schedule.step + 1
        gradients = [p.grad.float() for p in self.weights]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (1 / (norm + 1e-6)).clamp(max=1))
        at = 0
        for parameters, master, momentum in self.matrices:
            g = torch.stack([g.flatten(1) for g in gradients[at:at + len(parameters)]])
            at += len(parameters)
            momentum.lerp_(g, 0.05)
            rows, columns = g.shape[1:]
            direction = orthogonal(g.lerp(momentum, 0.95).bfloat16()).float()
            master.sub_(direction * (factor * self.muon_rate * max(1, rows / columns) ** 0.5))
        g = gradients[at:]
        torch._foreach_lerp_(self.first, g, 0.1)
        torch._foreach_mul_(self.second, self.beta2)
        torch._foreach_addcmul_(self.second, g, g, 1 - self.beta2)
        below = torch._foreach_div(self.second, 1 - self.beta2 ** n)
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, 1e-8)
        change = torch._foreach_div(self.first, below)
        torch._foreach_mul_(change, -factor * self.rate / (1 - 0.9 ** n))
        torch._foreach_add_(self.other_masters, change)
        torch._foreach_copy_(self.weights, self.masters)
        torch._foreach_lerp_(self.averages, self.masters, 1 - self.decay)
        self.schedule.step += 1
        return norm

    @torch.no_grad()
    def use_averages(self):
        torch._foreach_copy_(self.weights, self.averages)


class Captured:
    """A function without arguments, run again as one CUDA graph; on the CPU, or where capturing fails, simply called."""

    pool, wanted = None, True

    def __init__(self, function, log):
        self.function, self.graph = function, None
        if not torch.cuda.is_available() or not Captured.wanted:
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=Captured.pool):
                self.result = function()
            Captured.pool = Captured.pool or graph.pool()
            self.graph = graph
        except RuntimeError as error:
            log(f'no CUDA graph: {error}')
            torch.cuda.synchronize()

    def __call__(self):
        if self.graph is None:
            return self.function()
        self.graph.replay()
        return self.result
