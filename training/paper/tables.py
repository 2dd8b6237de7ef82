"""Table 5 of the AWSRN paper (arXiv 1904.02358) as data: every system's size and results; and those of the
systems that only its text names."""

from dataclasses import dataclass
from functools import cache

SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """PSNR-Y in dB and SSIM, None where that was not reported. `damaged`: misprinted, or illegible where the
    table was read from, so that the figures may not be those the authors meant."""

    psnr_db: float
    ssim: float | None
    damaged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row. `parameters` and `mult_adds` (for a 1280×720 result) as rounded there; None where a figure is
    missing. `cells` lacks the sets that were not reported, or whose figures are lost. `in_table_5`: else the
    figures are of the system's own paper, or of the next to report them."""

    name: str
    scale: int
    parameters: int | None
    mult_adds: float | None
    size_damaged: bool
    cells: dict[str, Cell]
    in_table_5: bool


# scale | system | parameters | Mult-Adds | PSNR/SSIM on Set5 | Set14 | B100 | Urban100 | Manga109.
# "-" was not reported, "?" is lost. An asterisk marks a damaged figure; some are only seen by contradiction:
# a value that repeats its neighbour's, or an SSIM that such a PSNR can't have.
_TABLE_5 = """
2 | SRCNN | 57K | 52.7G | 36.66/.9542 | 32.42/.9063 | 31.36/.8879 | 29.50/.8946 | 35.74/.9661
2 | FSRCNN | 12K | 6.0G | 37.00/.9558 | 32.63/.9083* | 31.53/.8920 | 29.88/.9020 | 36.67/.9694
2 | VDSR | 665K | 612.6G | 37.53/.9587 | 33.03/.9124 | 31.90/.8960 | 30.76/.9140 | 37.22/.9729
2 | DRCN | 1774K | 17974G | 37.63/.9588 | 33.04/.9118 | 31.85/.8942 | 30.75/.9133 | 37.63/.9723
2 | LapSRN | 813K | 29.9G | 37.52/.9590 | 33.08/.9130 | 31.80/.8950 | 30.41/.9100 | 37.27/.9740
2 | DRRN | 297K | 6796.9G | 37.74/.9591 | 33.23/.9136 | 32.05/.8973 | 31.23/.9188 | 37.92/.9760
2 | MemNet | 677K | 2662.4G | 37.78/.9597 | 33.28/.9142 | 32.08/.8978 | 31.31/.9195 | -
2 | CARN-M | 412K | 91.2G | 37.53/.9583 | 33.26/.9142* | 31.92/.8960 | 31.23/.9193 | -
2 | FALSR-B | 326K | 74.7G | 37.61/.9585 | 33.29/.9141 | 31.97/.8967 | 31.28/.9193* | -
2 | FALSR-C | 408K | 93.7G | 37.66/.9586 | 33.26/.9140 | 31.96/.8965 | 31.24/.9191 | -
2 | AWSRN-S | 397K | 91.2G | 37.75/.9596 | 33.31/.9151 | 32.00/.8974 | 31.39/.9207 | 37.90/.9755
2 | AWSRN-SD | 348K | 79.6G | 37.86/.9600 | 33.41/.9161 | 32.00/.8974* | 31.67/.9237 | 38.20/.9762
2 | SelNet | 974K | 225.7G | 37.89/.9598 | 33.61/.9160 | 32.08/.8984 | - | -
2 | MoreMNAS-A | 1039K | 238.6G | 37.63/.9584 | 33.23/.9138 | 31.95/.8961 | 31.24/.9187 | -
2 | FALSR-A | 1021K | 234.7G | 37.82/.9595 | 33.55/.9168 | 32.12/.8987 | 31.93/.9256 | -
2 | AWSRN-M | 1063K | 244.1G | 38.04/.9605 | 33.66/.9181 | 32.21/.9000 | 32.23/.9294 | 38.66/.9772
2 | SRMDNF | 1513K | 347.7G | 37.79/.9600 | 33.32/.9150 | 32.05/.8980 | 31.33/.9200 | -
2 | CARN | 1513K* | 222.8G | 37.76/.9590 | 33.52/.9166 | 32.09/.8978 | 31.92/.9256 | -
2 | MSRN | 5930K | 1365.4G | 38.08/.9607 | 33.70/.9186 | 32.23/.9002 | 32.29/.9303 | 38.69/.9772
2 | AWSRN | 1397K | 320.5G | 38.11/.9608 | 33.78/.9189 | 32.26/.9006 | 32.49/.9316 | 38.87/.9776
3 | SRCNN | 57K | 52.7G | 32.75/.9090 | 29.28/.8209 | 28.41/.7863 | 26.24/.7989 | 30.59/.9107
3 | FSRCNN | 12K | 5.0G | 33.16/.9140 | 29.43/.8242 | 28.53/.7910 | 26.43/.8080 | 30.98/.9212
3 | VDSR | 665K | 612.6G | 33.66/.9213 | 29.77/.8314 | 28.82/.7976 | 27.14/.8279 | 32.01/.9310
3 | DRCN | 1774K | 17974G | 33.82/.9226 | 29.76/.8311 | 28.80/.7963 | 27.15/.8276 | 32.31/.9328
3 | DRRN | 297K | 6796.9G | 34.03/.9244 | 29.96/.8349 | 28.95/.8004 | 27.53/.8378 | 32.74/.9390
3 | MemNet | 677K | 2662.4G | 34.09/.9248 | 30.00/.8350 | 28.96/.8001 | 27.56/.8376 | -
3 | CARN-M | 412K | 46.1G | 33.99/.9236 | 30.08/.8367 | 28.91/.8000 | 27.55/.8385 | -
3 | AWSRN-S | 477K | 48.6G | 34.02/.9240 | 30.09/.8376 | 28.92/.8009 | 27.57/.8391 | 32.82/.9393
3 | AWSRN-SD | 388K | 39.5G | 34.18/.9273 | 30.21/.8398* | 28.99/.8027 | 27.80/.8444 | 33.13/.9416
3 | SelNet | 1159K | 120.0G | 34.27/.9257 | 30.30/.8399 | 28.97/.8025 | - | -
3 | AWSRN-M | 1143K | 116.6G | 34.42/.9275 | 30.32/.8419 | 29.13/.8059 | 28.26/.8545 | 33.64/.9450
3 | SRMDNF | 1530K | 156.3G | 34.12/.9250 | 30.04/.8370 | 28.97/.8030 | 27.57/.8400 | -
3 | CARN | 1592K | 118.8G | 34.29/.9255 | 30.29/.8407 | 29.06/.8034 | 28.06/.8493 | -
3 | MSRN | 6114K | 625.7G | 34.46/.9278 | 30.41/.8437 | 29.15/.8064 | 28.33/.8561 | 33.67/.9456
3 | AWSRN | 1476K | 150.6G | 34.52/.9281 | 30.38/.8426 | 29.16/.8069 | 28.42/.8580 | 33.85/.9463
4 | SRCNN | 57K | 52.7G | 30.48/.8628 | 27.49/.7503 | 26.90/.7101 | 24.52/.7221 | 27.66/.8505
4 | FSRCNN | 12K | 4.6G | 30.71/.8657 | 27.59/.7535 | 26.98/.7150 | 24.62/.7280 | 27.90/.8517
4 | VDSR | 665K | 612.6G | 31.35/.8838 | 28.01/.7674 | 27.29/.7251 | 25.18/.7524 | 28.83/.8809
4 | DRCN | 1774K | 17974G | 31.53/.8854 | 28.02/.7670 | 27.23/.7233 | 25.14/.7510 | 28.98/.8816
4 | LapSRN | 813K | 149.4G | 31.54/.8850 | 28.19/.7720 | 27.32/.7280 | 25.21/.7560 | 29.09/.8845
4 | DRRN | 297K | 6796.9G | 31.68/.8888 | 28.21/.7720 | 27.38/.7284 | 25.44/.7638 | 29.46/.8960
4 | MemNet | 677K | 2662.4G | 31.74/.8893 | 28.26/.7723 | 27.40/.7281 | 25.50/.7630 | -
4 | CARN-M | 412K | 32.5G | 31.92/.8903 | 28.42/.7762 | 27.44/.7304 | 25.62/.7694 | -
4 | AWSRN-S | 588K | 33.7G | 31.77/.8893 | 28.35/.7761 | 27.41/.7304 | 25.56/.7678 | 29.74/.8982
4 | AWSRN-SD | 444K | 25.4G | 31.98/.8921 | 28.46/.7786 | 27.48/.7368 | 25.74/.7746 | 30.09/.9024
4 | SelNet | 1417K | 83.1G | 32.00/.8931 | 28.49/.7783 | 27.44/.7325 | - | -
4 | AWSRN-M | 1254K | 72.0G | 32.21/.8954 | 28.65/.7832 | 27.60/.7368 | 26.15/.7884 | 30.56/.9093
4 | SRDenseNet | 2015K | 389.9G | 32.02/.8934 | 28.50/.7782 | 27.53/.7337 | 26.05/.7819 | -
4 | SRMDNF | 1555K | 89.3G | 31.96/.8930 | 28.35/.7770 | 27.49/.7340 | 25.68/.7730 | -
4 | CARN | 1592K | 90.9G | 32.13/.8937 | 28.55/.7770* | 27.58/.7349 | 25.08/.7730* | -
4 | MSRN | 6078K | 349.8G | 32.13/.8937* | 28.63/.7836 | 27.61/.7380 | 26.22/.7911 | 30.57/.9103
4 | AWSRN | 1587K | 91.1G | 32.20/.8960* | 28.69/.7843 | 27.61/.7385* | 26.29/.7930 | 30.72/.9109
8 | SRCNN | 57K | 52.7G | 25.34/.6471 | 23.86/.5443 | 24.14/.5043 | 21.29/.5133 | 22.46/.6606
8 | FSRCNN | 12K | 4.6G | 25.42/.6440 | 23.94/.5482 | 24.21/.5112* | 21.32/.3090* | ?
8 | VDSR | 665K | 612.6G | 25.73/.6743 | 23.20/.5110 | 24.34/.5169 | ? | 22.73/.6688
8 | DRCN | 1774K | 17974G | 25.93/.6743 | 24.25/.5510 | 24.34/.5169* | 21.71/.5289 | 23.20/.6686
8 | LapSRN | 813K | - | 26.15/.7028 | 24.25/.5510* | 24.54/.5293 | 21.81/.5555 | 23.39/.7068
8 | MSRN | 6226K | 89.6G | 26.59/.7254 | 24.43/.5792* | 24.70/.5410 | 22.37/.5977 | 24.28/.7517
8 | AWSRN | 2348K | 33.7G | 26.97/.7747 | 24.99/.6414 | 24.80/.5967 | 22.45/.6174 | 24.60/.7782
"""

# As above, of the systems that the text names beside them. Results: of EDSR, RDN, RCAN and D-DBPN as RCAN's
# paper lists them, of MDSR and SRResNet as EDSR's does, of WDSR as its authors' program (ychfan/wdsr) does.
# Sizes: as their own papers round them; SRResNet's are from CARN's, WDSR's from that program, ESPCN's,
# which its own paper doesn't say, from who compared it with others later (7universum.com, tech 21820).
_OTHERS = """
2 | ESPCN | 21K | - | - | - | - | - | -
2 | WDSR | 1190K | - | 38.08/- | - | 32.23/- | 32.34/- | -
2 | EDSR | - | - | 38.11/.9602 | 33.92/.9195 | 32.32/.9013 | 32.93/.9351 | 39.10/.9773
2 | MDSR | 8000K | - | 38.11/.9602 | 33.85/.9198 | 32.29/.9007 | 32.84/.9347 | -
2 | D-DBPN | - | - | 38.09/.9600 | 33.85/.9190 | 32.27/.9000 | 32.55/.9324 | 38.89/.9775
2 | RDN | - | - | 38.24/.9614 | 34.01/.9212 | 32.34/.9017 | 32.89/.9353 | 39.18/.9780
2 | RCAN | - | - | 38.27/.9614 | 34.12/.9216 | 32.41/.9027 | 33.34/.9384 | 39.44/.9786
3 | WDSR | 1196K | - | 34.45/- | - | 29.14/- | 28.33/- | -
3 | EDSR | - | - | 34.65/.9280 | 30.52/.8462 | 29.25/.8093 | 28.80/.8653 | 34.17/.9476
3 | MDSR | 8000K | - | 34.66/.9280 | 30.44/.8452 | 29.25/.8091 | 28.79/.8655 | -
3 | RDN | - | - | 34.71/.9296 | 30.57/.8468 | 29.26/.8093 | 28.80/.8653 | 34.13/.9484
3 | RCAN | - | - | 34.74/.9299 | 30.65/.8482 | 29.32/.8111 | 29.09/.8702 | 34.44/.9499
4 | SRResNet | 1543K | 127.8G | 32.05/.8910 | 28.53/.7804 | 27.57/.7354 | 26.07/.7839 | -
4 | WDSR | 1203K | - | 32.22/- | - | 27.61/- | 26.21/- | -
4 | EDSR | 43000K | - | 32.46/.8968 | 28.80/.7876 | 27.71/.7420 | 26.64/.8033 | 31.02/.9148
4 | MDSR | 8000K | - | 32.50/.8973 | 28.72/.7857 | 27.72/.7418 | 26.67/.8041 | -
4 | D-DBPN | 10000K | - | 32.47/.8980 | 28.82/.7860 | 27.72/.7400 | 26.38/.7946 | 30.91/.9137
4 | RDN | 22000K | - | 32.47/.8990 | 28.81/.7871 | 27.72/.7419 | 26.61/.8028 | 31.00/.9151
4 | RCAN | 16000K | - | 32.63/.9002 | 28.87/.7889 | 27.77/.7436 | 26.82/.8087 | 31.22/.9173
8 | EDSR | - | - | 26.96/.7762 | 24.91/.6420 | 24.81/.5985 | 22.51/.6221 | 24.69/.7841
8 | D-DBPN | - | - | 27.21/.7840 | 25.13/.6480 | 24.88/.6010 | 22.73/.6312 | 25.14/.7987
8 | RCAN | - | - | 27.31/.7878 | 25.23/.6511 | 24.98/.6058 | 23.00/.6452 | 25.24/.8029
"""


@cache
def table_5(scale: int) -> tuple[System, ...]:
    """The rows for one scale, in the paper's order; none for a scale that it has no results for."""
    return _systems(_TABLE_5, scale, in_table_5=True)


@cache
def others(scale: int) -> tuple[System, ...]:
    """Rows alike, for one scale, of the systems that only the paper's text names."""
    return _systems(_OTHERS, scale, in_table_5=False)


def _systems(table: str, scale: int, *, in_table_5: bool) -> tuple[System, ...]:
    rows = (_system(line, in_table_5) for line in table.strip().splitlines())
    return tuple(row for row in rows if row.scale == scale)


def _system(line: str, in_table_5: bool) -> System:
    scale, name, parameters, mult_adds, *results = (part.strip() for part in line.split("|"))
    cells = {}
    for set_name, text in zip(SETS, results, strict=True):
        if text not in "-?":
            psnr_db, ssim = text.rstrip("*").split("/")
            cells[set_name] = Cell(
                psnr_db=float(psnr_db),
                ssim=None if ssim == "-" else float(ssim),
                damaged=text.endswith("*"),
            )
    return System(
        name=name,
        scale=int(scale),
        parameters=None if parameters == "-" else int(parameters.rstrip("K*")) * 1000,
        mult_adds=None if mult_adds == "-" else float(mult_adds.rstrip("G*")) * 1e9,
        size_damaged="*" in parameters + mult_adds,
        cells=cells,
        in_table_5=in_table_5,
    )
