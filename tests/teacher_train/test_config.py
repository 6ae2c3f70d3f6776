import subprocess
import sys

HEAVY = {"torch", "ray", "vllm", "mlflow", "transformers", "deepspeed"}


def test_configs_import_nothing_heavy():
    code = "import sys, teacher_train.config, teacher_infer.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())
