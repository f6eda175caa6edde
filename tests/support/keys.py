"""Ed25519 key pairs, as openssl writes them."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ids_spark.models.signatures import SignKey


@dataclass(frozen=True)
class KeyPair:
    """A private key, and the files of both keys."""

    key: Ed25519PrivateKey
    private: Path
    public: Path

    @property
    def sign_key(self) -> SignKey:
        """The key as the code uses it."""
        return SignKey(self.key)

    @property
    def signing(self) -> tuple[str, str]:
        """Settings of a job that signs and trusts the key."""
        return f"train.sign_key={self.private}", self.trusting

    @property
    def trusting(self) -> str:
        """The setting of a job that trusts the key."""
        return f"score.trusted_keys=[{self.public}]"


def key_pair(folder: Path, name: str = "key") -> KeyPair:
    """Write a new pair of keys, the private one readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    key, private, public = Ed25519PrivateKey.generate(), folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    public.chmod(0o644)
    return KeyPair(key, private, public)
