"""Upscalers judged on images and video by the papers' protocols."""
