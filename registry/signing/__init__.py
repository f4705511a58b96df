"""Signatures over release records, in OpenSSH's format: made and checked offline.

    wire.py      SSH's encoding of strings and numbers, read strictly
    keys.py      public keys
    signing_key.py  the private key that signs
    sshsig.py    the signature itself: what `ssh-keygen -Y sign -n paramdelta` writes
    keyring.py   who is trusted: OpenSSH's `allowed_signers`
    make.py      a signature added to a release
    copying.py   what goes along between stores, and rollbacks
    trust.py     a release, its signatures and a keyring → who vouches for it, or why nobody does

Nothing here does cryptography of its own: Ed25519 is the package ``cryptography``'s.
"""
