"""Tables 1-4 of the AWSRN paper (arXiv 1904.02358, section 4.3) as data: what they compare, and results."""

from dataclasses import dataclass

SCALE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row: a network by its name, whole or with one AWMS branch taken out after training. The paper's
    PSNR is None where the text of the table is lost."""

    label: str
    network: str
    without: int | None = None
    paper_psnr_db: float | None
    paper_alpha: float | None = None  # of the branch taken out


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """Rows in groups, each compared with the first of its group."""

    title: str
    paper_psnr: str
    groups: tuple[tuple[Variant, ...], ...]


_BENCHMARKS = "mean of Set5, Set14, B100, Urban100, Manga109"


def _removals(
    backbone: str, network: str, paper_psnr_db: float, branches: dict[int, tuple[float, float | None]]
) -> tuple[Variant, ...]:
    whole = Variant(label=backbone, network=network, paper_psnr_db=paper_psnr_db)
    return whole, *(
        Variant(
            label=f"{backbone}, without {kernel}×{kernel}",
            network=network,
            without=kernel,
            paper_psnr_db=psnr_db,
            paper_alpha=alpha,
        )
        for kernel, (alpha, psnr_db) in branches.items()
    )


TABLES = {
    "table1": PaperTable(
        title="Table 1: residual units in WDSR",
        paper_psnr=_BENCHMARKS,
        groups=(
            (
                Variant(label="Basic RU", network="wdsr", paper_psnr_db=34.99),
                Variant(label="wRU", network="wdsr-wru", paper_psnr_db=35.02),
                Variant(label="AWRU", network="wdsr-awru", paper_psnr_db=35.02),
            ),
        ),
    ),
    "table2": PaperTable(
        title="Table 2: AWRU and LRFU",
        paper_psnr=_BENCHMARKS,
        groups=(
            (
                Variant(label="baseline", network="wdsr", paper_psnr_db=34.99),
                Variant(label="AWSRN-NA", network="awsrn-na", paper_psnr_db=35.03),
                # Without LRFUs what is left is WDSR with AWRUs: the paper lists 35.02 for both.
                Variant(label="AWSRN-NL", network="wdsr-awru", paper_psnr_db=35.02),
                Variant(label="AWSRN-B", network="awsrn-b", paper_psnr_db=35.08),
            ),
        ),
    ),
    "table3": PaperTable(
        title="Table 3: AWMS against a plain 3×3 reconstruction",
        paper_psnr=_BENCHMARKS,
        groups=(
            (
                Variant(label="WDSR", network="wdsr", paper_psnr_db=34.99),
                Variant(label="WDSR with AWMS", network="wdsr-awms", paper_psnr_db=35.02),
            ),
            (
                Variant(label="AWSRN-B", network="awsrn-b", paper_psnr_db=35.08),
                Variant(label="AWSRN-B with AWMS", network="awsrn", paper_psnr_db=35.1),
            ),
        ),
    ),
    "table4": PaperTable(
        title="Table 4: AWMS branches taken out after training",
        paper_psnr="Set5",
        groups=(
            _removals(
                "WDSR with AWMS",
                "wdsr-awms",
                38.09,
                {3: (0.1029, 32.92), 5: (0.0190, 38.07), 7: (0.0111, 38.09), 9: (0.0088, 38.09)},
            ),
            _removals(
                "AWSRN-B with AWMS",
                "awsrn",
                38.11,
                {3: (0.1282, None), 5: (0.0211, 38.09), 7: (-0.0003, 38.11), 9: (0.0173, 38.10)},
            ),
        ),
    ),
}
