"""Names become describers here: a folder of ours, `module:function`, a torch.hub folder, an .onnx file."""
