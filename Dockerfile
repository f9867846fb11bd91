# JupyterLab with the study in it, for `docker run`, for .devcontainer and for Binder:
#   docker build -t study . && docker run -p 8888:8888 study
FROM python:3.11-slim

# Without a GPU, torch's CUDA parts would be 5 GB of no use. For one, build with
#   --build-arg TORCH_INDEX=https://pypi.org/simple and run with --gpus all.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Binder gives the name and number of the person who runs it.
ARG NB_USER=reader
ARG NB_UID=1000

RUN apt-get update \
  && apt-get install --yes --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home --uid ${NB_UID} ${NB_USER}

ENV HOME=/home/${NB_USER} PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR ${HOME}/study

COPY requirements.lock ./
RUN pip install --extra-index-url ${TORCH_INDEX} -r requirements.lock

COPY --chown=${NB_UID} . ./
RUN pip install --no-deps --no-build-isolation -e . && chown ${NB_UID} ${HOME}/study

USER ${NB_UID}
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--notebook-dir=notebooks"]
