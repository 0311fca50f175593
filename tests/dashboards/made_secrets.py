"""Made-up secrets of known kinds, their prefixes in parts so that no scanner of secrets takes them for real ones."""

import random
import string

LETTERS = string.ascii_letters + string.digits
DRAW = random.Random(0)


def drawn(count, letters=LETTERS):
    return "".join(DRAW.choice(letters) for _ in range(count))


def values():
    """``{kind: (text, the part of it that nobody may read)}``: texts that are secret below any name."""
    prefixes = {
        ("sk-", "proj-"): 60,
        ("sk-", "ant-api03-"): 80,
        ("s", "k-"): 48,
        ("gh", "p_"): 36,
        ("gh", "s_"): 36,
        ("github", "_pat_"): 82,
        ("h", "f_"): 34,
        ("wandb", "_v1_"): 77,
        ("AI", "za"): 35,
        ("ya", "29."): 60,
        ("xo", "xb-"): 40,
        ("gl", "pat-"): 20,
        ("np", "m_"): 36,
        ("pypi", "-AgEI"): 70,
        ("r", "8_"): 37,
        ("nv", "api-"): 64,
        ("dckr", "_pat_"): 27,
        ("s", "k_live_"): 24,
        ("ey", "JhbGciOiJIUzI1NiJ9."): 40,
        ("SG", f".{drawn(22)}."): 43,
        ("https://x.example/d?lr=1&to", "ken="): 32,
        ("https://x.example/d?api_", "key="): 32,
        ("https://x.example/c?sv=2022&s", "ig="): 43,
        ("https://hooks.slack.example/services/T12345678/B12345678", "/"): 24,
        ("AccountName=a;Account", "Key="): 86,
        ("Bea", "rer "): 30,
        ("Ba", "sic "): 30,
        ("to", "ken "): 36,
        ("--api", "-key="): 30,
        ("--pass", "word "): 12,
        ("--pass", "word '"): 12,
        ("DB_PASS", "WORD="): 12,
        ('{"lr": 1, "to', 'ken": "'): 12,
        ("Namespace(lr=1, to", "ken='"): 12,
        ("-----BEGIN RSA PRIVATE ", "KEY-----\n"): 64,
        ("Authorization: Ba", "sic "): 8,
        ("headers={'a': {'b': 1}, 'c': '", ""): 12,
        ("secr", "ets=[1, "): 12,
    }
    found = {"".join(parts): drawn(count) for parts, count in prefixes.items()}
    found = {start: (start + secret, secret) for start, secret in found.items()}
    for start in ("AK" + "IA", "AS" + "IA"):
        secret = drawn(16, string.ascii_uppercase)
        found[start] = (start + secret, secret)
    telegram, password, user = drawn(35), drawn(12), drawn(40)
    return found | {
        "Telegram": (f"123456789:{telegram}", telegram),
        "password of an address": (f"postgresql://me:{password}@db/x", password),
        "user of an address": (f"https://{user}@git.example/a.git", user),
    }


_NAMES = """
api_key apikey api-key API_KEY apiKey wandb_api_key secret client_secret secretKey password passwd db_pass pwd
passphrase token hf_token access_token accessToken refreshToken auth_token authorization cookie session_cookie
headers.Authorization session_id sessionid credentials cred creds private_key privateKey sshkey ssh_key sas_token
dsn pat otp connection_string database_url db_url webhook webhook_url github_pat jwt bearer x-api-key tokens.0
api_keys.0 secrets.0 passwords.0 wandb_key comet_key encryption_key signing_key license_key HUGGINGFACE_HUB_TOKEN
user_token_value smtp_pass uuid_api_key md5_secret env.WANDB_API_KEY callbacks.X.headers.Other token2
"""
NAMES = _NAMES.split()

ORDINARY = {
    "tokenizer": "bert-base-uncased",
    "key_dim": 64,
    "num_keys": 8,
    "keys": "a,b",
    "max_tokens": 512,
    "passes": 20,
}
ORDINARY |= {
    "git_commit": "9c56cc51b374c3ba189210d5b6d4bf57790d351c",
    "dataset_md5": "d41d8cd98f00b204e9800998ecf8427e",
}
ORDINARY |= {"run_uuid": "123e4567-e89b-12d3-a456-426614174000", "author": "A. Name", "pin_memory": True, "patch": 4}
ORDINARY |= {"base": "glue-mnli-roberta-base", "net": "hf_BertForSequenceClassification", "train_tokens": "10B"}
ORDINARY |= {"peer": "sk_GradientBoostingClassifier", "text": "basic resnet18-cifar10-baseline-long, tokens=300B"}
ORDINARY |= {"image_key": "observation_image_480x640", "context_token": "global", "layer": "global-average-pooling-1"}
ORDINARY |= {"session": "morning", "sas_urls": 0, "bearing": 0.3, "certainty": 0.9, "login_node": "n1", "auth": None}
ORDINARY |= {"url": "https://data.example/cifar.tar?version=2", "model": "vit_base_patch16_224.augreg2_in21k_ft_in1k"}
ORDINARY |= {"query_key_norm": True, "cookie_cutter": "v2", "webhooks_enabled": False, "salt_and_pepper": 0.02}
ORDINARY |= {
    "pad_token": "[PAD]",
    "eos_token": "</s>",
    "low_pass": "butterworth",
    "image_key": "observation.images.top",
}
ORDINARY |= {
    "storage": "sqlite:///optuna.db",
    "origin": "ssh://git@git.example/a/b",
    "name": "sk-learn-random-forest-v2",
}
ORDINARY |= {"server": "https://a-very-long-name-of-a-host.example:8080/a@b", "task": "basic classification of images"}
ORDINARY |= {"argv": ["--lr", "0.1", "--no-auth", "--seed", "3"], "group": "lr=3e-4, token_dim=4", "monitor": "val/acc"}
ORDINARY |= {"started": "2026-11-29 22:21:09", "checkpoint": "epoch=3-step=1200.ckpt", "token_dropout": 0.1}
