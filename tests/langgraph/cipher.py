"""A cipher for encrypted threads, without a package of its own."""

import os


class XorCipher:
    """A cipher with a random nonce, like real ones; it keeps no secrets."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(16)
        return "xor", nonce + self._xor(plaintext, nonce)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername != "xor":
            raise ValueError(f"unknown cipher {ciphername}")
        return self._xor(ciphertext[16:], ciphertext[:16])

    @staticmethod
    def _xor(data: bytes, nonce: bytes) -> bytes:
        key = (nonce * (len(data) // 16 + 1))[: len(data)]
        return bytes(one ^ other ^ 90 for one, other in zip(data, key, strict=True))
