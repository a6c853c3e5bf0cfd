"""Two hosts, as torchrun and as SLURM start them; and what a scheduler starts again goes on."""

import socket

import pytest
import torch
from processes import last, training_args, zoo_process
from small_corpus import make_corpus

STEPS = ("--trainer.max_steps", "30", "--model.dropout", "0", "--model.optimizer.decay_steps", "30")
TWO_HOSTS = ("--trainer.accelerator", "cpu", "--trainer.num_nodes", "2", "--trainer.devices", "1")
AUTO = ("--ckpt_path", "auto")


def torchrun(rank, port):
    place = ("--master-addr", "127.0.0.1", "--master-port", str(port))
    hosts = ("--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1")
    return {"launcher": ("-m", "torch.distributed.run", *hosts, *place, "-m", "zoo")}


def slurm(rank, port):
    return {
        "SLURM_JOB_ID": "4321",
        "SLURM_JOB_NAME": "zoo",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank),
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, and the run of one process."""
    folder = tmp_path_factory.mktemp("launchers")
    run = zoo_process(folder, *training_args(make_corpus(folder), folder / "one"), *STEPS)
    assert run.wait() == 0, (folder / "log.txt").read_text()
    return folder


@pytest.mark.parametrize("launcher", [torchrun, slurm])
def test_two_hosts_train_what_one_process_trains_and_go_on_when_started_again(folder, launcher):
    def start(*more):
        port = free_port()
        hosts = [
            zoo_process(
                folder,
                *training_args(folder / "corpus", folder / launcher.__name__),
                *(*STEPS, *TWO_HOSTS, *AUTO, *more),
                log=f"{launcher.__name__}-{rank}.txt",
                **launcher(rank, port),
            )
            for rank in (0, 1)
        ]
        codes = [host.wait() for host in hosts]
        assert codes == [0, 0], (folder / f"{launcher.__name__}-{codes.index(max(codes))}.txt").read_text()

    start("--trainer.max_steps", "20")
    start()
    two, one = (torch.load(last(folder / run)) for run in (launcher.__name__, "one"))
    assert two["global_step"] == 30
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, atol=1e-5, rtol=1e-4)
