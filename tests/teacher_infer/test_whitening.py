import torch

from teacher_infer.whitening import whitening


def whitened(embeddings, power):
    return whitening(embeddings, power)(embeddings)


def test_whitening_evens_out_the_principal_components():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, 6, generator=generator) * torch.tensor([9.0, 5, 3, 1, 0.5, 0.1]) + 7
    for power, expected in ((0.0, torch.tensor([9.0, 5, 3, 1, 0.5, 0.1])), (1.0, torch.ones(6))):
        spread = whitened(embeddings, power).std(0)
        assert torch.allclose(spread / spread[0], expected / expected[0], rtol=0.2)
    centred = embeddings - embeddings.mean(0)
    turned = whitened(embeddings, 0.0)
    assert torch.allclose(turned @ turned.T, centred @ centred.T, atol=1e-2)


def test_whitening_leaves_directions_empty_that_the_data_do_not_have():
    flat = torch.randn(50, 2) @ torch.randn(2, 6)
    white = whitened(flat, 1.0)
    assert (white.std(0) > 1e-3).sum() == 2
    assert white.isfinite().all()
    assert white.is_contiguous()


def test_other_texts_go_through_the_same_map():
    embeddings = torch.randn(30, 4)
    change = whitening(embeddings, 0.5)
    torch.testing.assert_close(change(embeddings[3:5]), change(embeddings)[3:5])
