"""Trains the whole model on one GPU within given numbers of seconds, from what pack.py packed and model.py wrote.

    python gpu/train.py --pack PACK --model UNTRAINED --out OUT --autoencoder-seconds 100 --flow-seconds 400 --distil-seconds 60

Writes OUT/{vae,transformer,text_encoder,text_encoder_2,distilled}.safetensors (bfloat16; names of diffusers and transformers), and
OUT/*.png to look at. assemble.py makes a model folder of them.
"""
import argparse
import copy
import multiprocessing
import os
import pathlib
import sys
import time

os.environ['TOKENIZERS_PARALLELISM'] = 'false'
import numpy as np
import safetensors.torch
import tokenizers
import torch
import torch.nn.functional as F
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import captions
import networks
import painter
import scenes
from normalise_latents import normalised
from optimiser import Captured, Optimiser, Schedule

EDGES, KL = 0.5, 3e-4  # as src/train/autoencoder_task.cpp
SHIFT = 1.0  # as in model.py, which needs packages that are not always at hand here
CAPTIONS = 4  # for one picture
DROPPED = 0.1  # captions left out, for guidance
SHEET = ['a cat', 'a dog', 'a car', 'a house', 'a tree', 'the sun', 'a rocket', 'a robot', 'a pizza', 'a heart', 'a flat cat', 'a cartoon dog',
         'a red apple on a green background', 'a purple cat', 'a blue car on a yellow background', 'a green dragon on a red background',
         'a yellow butterfly on a blue background', 'a castle on a pink background', 'a pixel art rocket', 'a sticker of a fox on a blue background',
         'a silhouette of an elephant', 'two cats', 'three apples', 'a dog on the left and a tree on the right', 'a red car on the left and a blue house on the right',
         'the word "HELLO" in red letters on a white background', 'a sign that says OPEN', 'the word "SUN"', 'an octopus', 'a bicycle', 'a guitar',
         'Once upon a time there was a cat who sat by the window every morning and waited for the rain to stop.',
         'Somewhere in the far cold south a brave penguin is standing in the wind and does not move at all.',
         'a wizard', 'a castle', 'an ice cream', 'a photo of a woman in Paris', 'a dinosaur', 'a kitten', 'spaceship']


def log(*words):
    print(f'{time.time() - log.began:6.1f}', *words, flush=True)


log.began = time.time()


class Words:
    """Captions to ids, as FluxPipeline does it."""

    def __init__(self, model, t5_length):
        self.t5 = tokenizers.Tokenizer.from_file(str(model / 'tokenizer_2/tokenizer.json'))
        self.t5.enable_truncation(t5_length)
        self.t5.enable_padding(pad_id=0, pad_token='<pad>', length=t5_length)
        self.clip = tokenizers.Tokenizer.from_file(str(model / 'tokenizer/tokenizer.json'))
        self.clip.enable_truncation(77)
        end = self.clip.token_to_id('<|endoftext|>')
        self.clip.enable_padding(pad_id=end, pad_token='<|endoftext|>', length=77)

    def ids(self, lines):
        """→ int16 [N, T5's length], [N, 77]"""
        return tuple(np.array([e.ids for e in t.encode_batch(lines)], np.int16) for t in (self.t5, self.clip))


def choose(job):
    """Numbers of `count` scenes and the ids of their captions."""
    seed, count, concepts, facts, place, model, t5_length = job
    chooser = scenes.Chooser(facts, concepts, seed, mirror=False)
    words = Words(model, t5_length)
    chosen = [chooser.scene() for _ in range(count)]
    grounds, layers = zip(*(painter.numbers(place, s) for s in chosen))
    t5, clip = words.ids([chooser.caption(s) for s in chosen for _ in range(CAPTIONS)])
    return np.stack(grounds), np.stack(layers), t5.reshape(count, CAPTIONS, -1), clip.reshape(count, CAPTIONS, -1)


class Bank:
    """Encoded pictures and their captions, on the device."""

    def __init__(self, store, vae, made, side, device):
        self.t5, self.clip = (torch.from_numpy(np.concatenate([m[i] for m in made])).to(device) for i in (2, 3))
        parts, vae_dtype = [], next(vae.parameters()).dtype
        for ground, layers, _, _ in made:
            for g, l in zip(torch.from_numpy(ground).split(128), torch.from_numpy(layers).split(128)):
                pictures = painter.paint(store, g.to(device), l.to(device))
                pictures = painter.halved(pictures) if side == 128 else pictures
                with torch.no_grad():
                    parts.append(networks.packed(vae.encode((2 * pictures - 1).to(vae_dtype)).latent_dist.mean).bfloat16())
        self.latents = torch.cat(parts)

    def batch(self, count):
        """→ latents, T5's ids, CLIP's ids of pictures chosen at random, each with one of its captions."""
        device = self.latents.device
        rows = torch.randint(len(self.latents), (count,), device=device)
        line = torch.randint(CAPTIONS, (count,), device=device)
        return self.latents[rows].float(), self.t5[rows, line].long(), self.clip[rows, line].long()


def save_picture(pictures, path, columns=8):
    """float [B, 3, side, side] in [-1, 1] as one sheet."""
    pictures = pictures[:len(pictures) // columns * columns]
    rows = [torch.cat(list(part), 2) for part in pictures.split(columns)]
    sheet = torch.cat(rows, 1).float().clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(sheet).save(path)


# -- autoencoder ----------------------------------------------------------------------------------------------------------
def autoencoder_loss(vae, pictures, pool):
    posterior = vae.encode(pictures.bfloat16()).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    z = mean + (logvar / 2).exp() * torch.randn_like(mean)
    target = pictures
    if pool:
        z, target = F.avg_pool2d(z, 2), F.avg_pool2d(target, 2)
    decoded = vae.decode(z.bfloat16(), return_dict=False)[0].float()
    error = decoded - target
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    return error.abs().mean() + EDGES * edges + KL * 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def learned_pictures(store, bank, count):
    """Half scenes, at either size, half anything, 128 pixels wide."""
    rows = torch.randint(len(bank[0]), (count // 2,), device=bank[0].device)
    scene = painter.paint(store, bank[0][rows], bank[1][rows])
    top, left = (int(x) for x in torch.randint(0, 129, (2,)))
    small, part = painter.halved(scene[:count // 4]), scene[count // 4:, :, top:top + 128, left:left + 128]
    return 2 * torch.cat([small, part, painter.anything(store, count - count // 2)]) - 1


@torch.no_grad()
def normalise(vae, pictures):
    """Every latent channel with mean 0 and deviation 1, as normalise_latents.py."""
    mean_of = torch.cat([vae.encode(p.bfloat16()).latent_dist.mean.float() for p in pictures.split(64)]).transpose(0, 1).flatten(1)
    mean, deviation = mean_of.mean(1), mean_of.std(1)
    log('latents: means', [round(x, 2) for x in mean.tolist()], 'deviations', [round(x, 2) for x in deviation.tolist()])
    return normalised({k: v.float() for k, v in vae.state_dict().items()}, mean, deviation)


def train_autoencoder(vae, store, made, seconds, batch, device):
    """Two stages, with the latents normalised between them. Returns weights in float32 by name."""
    bank = [torch.from_numpy(np.concatenate([m[i] for m in made])).to(device) for i in (0, 1)]
    is_matrix = lambda name, p: p.ndim >= 2 and name not in ('encoder.conv_in.weight', 'decoder.conv_out.weight')
    held = learned_pictures(store, bank, 64)
    for stage, share in ((1, 0.62), (2, 0.38)):
        weights = dict(vae.named_parameters())
        schedule = Schedule(device, 50, 0.7 if stage == 1 else 0.95)
        optimiser = Optimiser(weights, is_matrix, schedule, 1e-3, 0.01, beta2=0.99)
        pictures = torch.zeros(batch, 3, 128, 128, device=device)

        def step(pool):
            for p in weights.values():
                p.grad = None
            loss = autoencoder_loss(vae, pictures, pool)
            loss.backward()
            optimiser.step()
            return loss.detach()

        pictures.copy_(learned_pictures(store, bank, batch))
        steps = [Captured(lambda: step(False), log), Captured(lambda: step(True), log)]
        done, began, total = 0, time.time(), 0.0
        while True:
            pictures.copy_(learned_pictures(store, bank, batch))
            loss = steps[done % 4 == 3]()
            done += 1
            if done == 20:
                began = time.time()
            if done == 60 or (done == 2 and device == 'cpu'):
                total = max(2, int(seconds * share / ((time.time() - began) / 40 if device != 'cpu' else 1)))
                schedule.total.fill_(total + float(schedule.step) - done)
                log(f'autoencoder, stage {stage}: {total} steps of {batch}')
            if done % 200 == 0:
                log(f'autoencoder {done}: loss {loss.item():.4f}')
            if total and done >= total:
                break
        with torch.no_grad():
            names = dict(zip(optimiser.names, optimiser.averages))
            for name, p in weights.items():
                p.copy_(names[name])
            shown = torch.cat([vae.decode(vae.encode(p.bfloat16()).latent_dist.mean, return_dict=False)[0] for p in held.split(16)])
            mse = (shown.float().clamp(-1, 1) - held).square().mean((1, 2, 3)) / 4
            log(f'autoencoder, stage {stage}: {(-10 * mse.log10()).mean():.1f} dB')
        if stage == 1:
            vae.load_state_dict(normalise(vae, torch.cat([learned_pictures(store, bank, 64) for _ in range(6)])))
    pairs = torch.stack([held, shown.float()], 1).flatten(0, 1)
    return {n: a.clone() for n, a in names.items()}, pairs


# -- flow -----------------------------------------------------------------------------------------------------------------
def noised(x0, mean, deviation):
    """→ x_t, t, what to predict. t is one that bfloat16 can say."""
    t = (mean + deviation * torch.randn(len(x0), device=x0.device)).sigmoid().bfloat16().float()
    noise = torch.randn_like(x0)
    return (1 - t[:, None, None]) * x0 + t[:, None, None] * noise, t, noise - x0


def flow_is_matrix(name, p):
    return p.ndim == 2 and ('blocks.' in name or 'encoder.block' in name or 'encoder.layers' in name) and \
        '.norm' not in name and 'relative_attention_bias' not in name


class Nothing:
    """The ids of an empty caption."""

    def __init__(self, words, device):
        self.t5, self.clip = (torch.from_numpy(ids).long().to(device) for ids in words.ids(['']))


def run_steps(graphs, schedule, seconds, late, name):
    """Steps until the time is over: graphs[0], and from the share `late` of them on every third one graphs[1]."""
    for graph in graphs:
        graph()
    torch.cuda.synchronize() if torch.cuda.is_available() else None
    times = []
    for graph in graphs:
        began = time.time()
        for _ in range(10 if torch.cuda.is_available() else 1):
            graph()
        torch.cuda.synchronize() if torch.cuda.is_available() else None
        times.append((time.time() - began) / (10 if torch.cuda.is_available() else 1))
    third = (1 - late) / 3 if len(graphs) > 1 else 0
    total = max(2, int(seconds / (times[0] * (1 - third) + times[-1] * third)))
    schedule.total.fill_(total + float(schedule.step))
    log(f'{name}: {total} steps, seconds a step {[round(t, 4) for t in times]}')
    sums = torch.zeros(len(graphs), device=schedule.step.device)
    counts, began = [0] * len(graphs), time.time()
    for i in range(total):
        which = int(len(graphs) > 1 and i > late * total and i % 3 == 0)
        sums[which] += graphs[which]()
        counts[which] += 1
        if i % 250 == 249 or i == total - 1:
            losses = [round(float(s) / max(1, c), 4) for s, c in zip(sums, counts)]
            log(f'{name} {i + 1}: losses {losses}')
            if name == 'flow' and not losses[0] < 1.5:
                raise SystemExit('it does not learn')
            sums.zero_()
            counts = [0] * len(graphs)
        if time.time() - began > seconds * 1.05 + 5:
            log(f'{name}: out of time after {i + 1} steps')
            break


def check_gradients(flow, bank, count, device):
    """A batch that repeats a smaller one has its gradients: else a kernel fails at this size, and a run would be wasted."""
    fewer = count // 16 or 1
    x0, t5, clip = bank.batch(fewer)
    x, t, target = noised(x0, SHIFT, 1)
    state = copy.deepcopy(flow.state_dict())
    with torch.no_grad():
        for p in flow.transformer.parameters():
            p.add_(0.02 * torch.randn_like(p))  # layers that begin at zero pass nothing on
    found = []
    for times in (1, count // fewer):
        more = lambda v: v.repeat(times, *[1] * (v.ndim - 1))
        flow.zero_grad(set_to_none=True)
        loss = (flow.velocity(more(x), more(t), torch.ones_like(more(t)), *flow.encode(more(t5), more(clip))).float() - more(target)).square().mean()
        loss.backward()
        found.append({n: p.grad.float() for n, p in flow.named_parameters()})
    flow.zero_grad(set_to_none=True)
    flow.load_state_dict(state)
    wrong = {n: float((found[1][n] - g).norm() / (g.norm() + 1e-12)) for n, g in found[0].items()}
    # In bfloat16 the many gradients of padding's embedding add up coarsely.
    wrong = {n: round(e, 3) for n, e in wrong.items() if not e < 0.1 and 'shared' not in n and 'embedding' not in n}
    if wrong:
        raise SystemExit(f'gradients of {fewer} and of {count} pictures differ: {dict(list(wrong.items())[:12])}')
    log('gradients agree')


def train_flow(flow, banks, sizes, nothing, seconds, device, late):
    for bank, count in zip(banks, sizes):
        check_gradients(flow, bank, count, device)
    weights = dict(flow.named_parameters())
    schedule = Schedule(device, 150, 0.6)
    optimiser = Optimiser(weights, flow_is_matrix, schedule, 1e-3, 0.02)

    def step(bank, count):
        for p in weights.values():
            p.grad = None
        x0, t5, clip = bank.batch(count)
        dropped = torch.rand(count, 1, device=device) < DROPPED
        text, pooled = flow.encode(torch.where(dropped, nothing.t5, t5), torch.where(dropped, nothing.clip, clip))
        x, t, target = noised(x0, SHIFT, 1)
        loss = (flow.velocity(x, t, torch.ones_like(t), text, pooled).float() - target).square().mean()
        loss.backward()
        optimiser.step()
        return loss.detach()

    graphs = [Captured(lambda b=b, c=c: step(b, c), log) for b, c in zip(banks, sizes)]
    run_steps(graphs, schedule, seconds, late, 'flow')
    optimiser.use_averages()


def distil(flow, banks, sizes, nothing, seconds, device):
    """The transformer learns to do guidance itself: Meng et al. 2210.03142, stage one."""
    teacher = copy.deepcopy(flow.transformer).requires_grad_(False)
    weights = {f'transformer.{n}': p for n, p in flow.transformer.named_parameters()}
    schedule = Schedule(device, 20, 0.98)
    optimiser = Optimiser(weights, flow_is_matrix, schedule, 3e-4, 0.004, average=0.99)
    with torch.no_grad():
        empty_text, empty_pooled = flow.encode(nothing.t5, nothing.clip)

    def step(bank, count):
        for p in weights.values():
            p.grad = None
        with torch.no_grad():
            x0, t5, clip = bank.batch(count)
            text, pooled = flow.encode(t5, clip)
            x, t, _ = noised(x0, SHIFT, 1)
            w, one = 1 + 4 * torch.rand_like(t), torch.ones_like(t)
            student, flow.transformer = flow.transformer, teacher
            with_text = flow.velocity(x, t, one, text, pooled).float()
            without = flow.velocity(x, t, one, empty_text.expand_as(text), empty_pooled.expand_as(pooled)).float()
            flow.transformer = student
            target = without + w[:, None, None] * (with_text - without)
        loss = (flow.velocity(x, t, w, text, pooled).float() - target).square().mean()
        loss.backward()
        optimiser.step()
        return loss.detach()

    graphs = [Captured(lambda b=b, c=c: step(b, c), log) for b, c in zip(banks, sizes)]
    run_steps(graphs, schedule, seconds, 0, 'distil')
    optimiser.use_averages()


@torch.no_grad()
def draw(flow, vae, words, prompts, side, steps, cfg, guidance, device, nothing):
    t5, clip = (torch.from_numpy(i).long().to(device) for i in words.ids(prompts))
    text, pooled = flow.encode(t5, clip)
    empty_text, empty_pooled = flow.encode(nothing.t5, nothing.clip)
    generator = torch.Generator('cpu').manual_seed(1)
    x = torch.randn(len(prompts), (side // 16) ** 2, 64, generator=generator).to(device)
    times = torch.linspace(1, 0, steps + 1)
    times = np.exp(SHIFT) * times / (1 + (np.exp(SHIFT) - 1) * times)
    for now, then in zip(times, times[1:]):
        t = torch.full((len(prompts),), float(now), device=device)
        w = torch.full_like(t, guidance)
        v = flow.velocity(x, t, w, text, pooled).float()
        if cfg != 1:
            without = flow.velocity(x, t, w, empty_text.expand_as(text), empty_pooled.expand_as(pooled)).float()
            v = without + cfg * (v - without)
        x = x + (then - now) * v
    return torch.cat([vae.decode(z, return_dict=False)[0] for z in networks.unpacked(x).to(vae.dtype).split(8)])


def save(weights, path):
    safetensors.torch.save_file({k: v.detach().bfloat16().contiguous().cpu() for k, v in weights.items()}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pack', type=pathlib.Path, required=True)
    parser.add_argument('--model', type=pathlib.Path, required=True)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--autoencoder', type=pathlib.Path, help='weights from an earlier run')
    parser.add_argument('--autoencoder-seconds', type=float, default=0)
    parser.add_argument('--flow-seconds', type=float, default=0)
    parser.add_argument('--distil-seconds', type=float, default=0)
    parser.add_argument('--bank', type=int, nargs=2, default=[400_000, 80_000], help='pictures of 128 and of 256 pixels')
    parser.add_argument('--batch', type=int, nargs=2, default=[768, 240], help='of each size; more than 65,536 rows of CLIP take another kernel')
    parser.add_argument('--late', type=float, default=0.45, help='share of the steps before the first of 256 pixels')
    parser.add_argument('--text-tokens', type=int, default=64)
    parser.add_argument('--concepts', type=int, default=10_000, help='only the first of concepts.txt')
    parser.add_argument('--no-graphs', action='store_true', help='every kernel is launched by itself')
    parser.add_argument('--processes', type=int, default=os.cpu_count())
    options = parser.parse_args()
    Captured.wanted = not options.no_graphs
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(1)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = scenes.Facts.of_file(options.pack / 'facts.json')
    concepts = captions.concepts()[:options.concepts]
    store = painter.Store(options.pack, facts, concepts, device, options.processes)
    log(f'{len(store.big)} drawings, {0 if store.others is None else len(store.others)} others, on {device}')

    sizes = [n for n in options.bank if n]
    chunk = min(4000, max(1, min(sizes)))
    jobs = [(1000 + i, chunk, concepts, facts, store.place, options.model, options.text_tokens) for i in range(sum(n // chunk for n in sizes))]
    pool = multiprocessing.Pool(options.processes)
    choosing = pool.map_async(choose, jobs, chunksize=1)

    vae = networks.autoencoder(options.model).to(device).bfloat16()
    if options.autoencoder:
        vae.load_state_dict(safetensors.torch.load_file(options.autoencoder))
    made = choosing.get()
    pool.close()
    log(f'{sum(len(m[0]) for m in made)} scenes chosen')
    if options.autoencoder_seconds:
        weights, pairs = train_autoencoder(vae, store, made[:12], options.autoencoder_seconds, 32 if device == 'cuda' else 8, device)
        save(weights, options.out / 'vae.safetensors')
        save_picture(pairs[:64], options.out / 'autoencoder.png')
    vae.requires_grad_(False)
    if not options.flow_seconds:
        return
    Captured.pool = None
    first = options.bank[0] // chunk
    banks = [Bank(store, vae, made[:first], 128, device)] + ([Bank(store, vae, made[first:], 256, device)] if options.bank[1] else [])
    latents = banks[0].latents[:20000].float()
    log(f'{[len(b.latents) for b in banks]} pictures encoded; latents: mean {latents.mean():.3f}, deviation {latents.std():.3f}')
    del made
    store.big = store.little = None
    torch.cuda.empty_cache() if device == 'cuda' else None
    words = Words(options.model, options.text_tokens)
    nothing = Nothing(words, device)
    flow = networks.Flow(options.model).to(device).bfloat16()
    train_flow(flow, banks, options.batch, nothing, options.flow_seconds, device, options.late)
    save(flow.transformer.state_dict(), options.out / 'transformer.safetensors')
    save(dict(flow.clip.named_parameters()), options.out / 'text_encoder.safetensors')
    save(dict(flow.t5.named_parameters()), options.out / 'text_encoder_2.safetensors')
    save_picture(draw(flow, vae, words, SHEET, 128, 16, 3, 1, device, nothing), options.out / 'transformer.png')
    if options.distil_seconds:
        distil(flow, banks, [max(1, b // 2) for b in options.batch], nothing, options.distil_seconds, device)
        save(flow.transformer.state_dict(), options.out / 'distilled.safetensors')
        save_picture(draw(flow, vae, words, SHEET, 128, 8, 1, 3, device, nothing), options.out / 'distilled.png')
        if options.bank[1]:
            save_picture(draw(flow, vae, words, SHEET[:24], 256, 8, 1, 3, device, nothing), options.out / 'distilled_256.png', 6)
    log('done')


if __name__ == '__main__':
    main()
