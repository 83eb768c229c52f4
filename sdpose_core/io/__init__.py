"""Files in and out: decoding images, videos, drawings, results as text. Needs no server."""
