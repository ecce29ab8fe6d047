"""Measures: how near a reconstruction comes to the private batch. They see the truth, so attacks never import them."""

from leakgauge.measures.assign import assign
from leakgauge.measures.identification import Identification, identification
from leakgauge.measures.image import MSE, PSNR, SSIM, Measure, mse, psnr, ssim
from leakgauge.measures.intervals import MedianInterval, median_interval
from leakgauge.measures.perceptual import LPIPS, lpips
from leakgauge.measures.rdlv import RDLV, rdlv
from leakgauge.measures.score import Scores, score, score_tensor
from leakgauge.measures.text import TextScores, rouge_l, rouge_n, score_texts, token_accuracy

__all__ = [
    "LPIPS",
    "MSE",
    "PSNR",
    "RDLV",
    "SSIM",
    "Identification",
    "Measure",
    "MedianInterval",
    "Scores",
    "TextScores",
    "assign",
    "identification",
    "lpips",
    "median_interval",
    "mse",
    "psnr",
    "rdlv",
    "rouge_l",
    "rouge_n",
    "score",
    "score_tensor",
    "score_texts",
    "ssim",
    "token_accuracy",
]
