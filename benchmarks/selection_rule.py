"""How often the selection's rule leaves the base, by how much was really gained: the figures of decision 13.

    python benchmarks/selection_rule.py

Each trial draws 100 development queries whose differences to the base have a standard deviation of 0.25: the
checkpoint's, and for merges a mixture of the checkpoint's and their own, smaller towards the base. A merge has the
root of its alpha of the true gain.
"""

import numpy as np

from m3tune.config import EvaluateConfig, SelectConfig
from m3tune.evaluation.select import BASE, Contender, choose, name_of

TRIALS, QUERIES, DEVIATION = 250, 100, 0.25
ALPHAS = (0.3, 0.5, 0.7, 0.85, 1.0)
IDS = [f"q{number}" for number in range(QUERIES)]
ALONE = {query_id: number for number, query_id in enumerate(IDS)}


def contenders(gain, generator):
    tuned = generator.normal(0, DEVIATION, QUERIES)
    rows = [Contender(BASE, 0.0, dict.fromkeys(IDS, 0.0))]
    for alpha in ALPHAS:
        own = generator.normal(0, DEVIATION, QUERIES) * np.sqrt(1 - alpha)
        values = alpha * (tuned + own) + gain * np.sqrt(alpha)
        rows.append(Contender(name_of(alpha), alpha, dict(zip(IDS, values.tolist(), strict=True))))
    return rows


def main():
    test = EvaluateConfig(resamples=1000)
    print("true gain  noise  " + "  ".join(f"{name_of(alpha):>11}" for alpha in (0.0, *ALPHAS)))
    for gain in (0.0, 0.025, 0.05):
        for noise in (1.0, 0.32, 0.05):
            generator = np.random.default_rng(0)
            config = SelectConfig(noise=noise)
            names = [choose(contenders(gain, generator), ALONE, config, test).name for _ in range(TRIALS)]
            shares = (names.count(name_of(alpha)) / TRIALS for alpha in (0.0, *ALPHAS))
            print(f"{gain:9.3f}  {noise:5.2f}  " + "  ".join(f"{share:11.2f}" for share in shares))


if __name__ == "__main__":
    main()
